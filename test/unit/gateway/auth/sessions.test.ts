import assert from 'node:assert/strict';
import { Sessions } from '@sallyport/gateway/spi';

describe('the sessions of a login', () => {
  const grant = {
    claims: undefined,
    idToken: undefined,
    scopes: undefined,
    refreshToken: undefined,
    lifeMs: undefined,
  };
  const sessionsOf = (maxSessions: number) => new Sessions({ sessionMs: 1000, idleMs: 500, maxSessions });
  const begin = (sessions: Sessions, subject: string, now = 0) =>
    sessions.begin({ subject, issuer: 'issuer', scopes: new Set(), claims: {} }, grant, now);

  it('of others are not ended by whoever logs in again and again', () => {
    const sessions = sessionsOf(3);
    const ada = begin(sessions, 'ada');

    const greedy = [1, 2, 3, 4, 5].map(() => begin(sessions, 'eve'));

    assert.equal(sessions.size, 3);
    assert.ok(sessions.has(ada));
    assert.deepEqual(
      greedy.map((id) => sessions.has(id)),
      [false, false, false, true, true],
    );
  });

  it('give way by how long they were not used, where the newcomer has none', () => {
    const sessions = sessionsOf(2);
    const [ada, bob] = [begin(sessions, 'ada'), begin(sessions, 'bob')];
    sessions.find(ada, 1);

    const eve = begin(sessions, 'eve');

    assert.deepEqual(
      [ada, bob, eve].map((id) => sessions.has(id)),
      [true, false, true],
    );
  });

  it('that are over give way first', () => {
    const sessions = sessionsOf(2);
    const [ada, bob] = [begin(sessions, 'ada', 0), begin(sessions, 'bob', 400)];

    const again = begin(sessions, 'bob', 600);

    assert.deepEqual(
      [ada, bob, again].map((id) => sessions.has(id)),
      [false, true, true],
    );
  });
});
