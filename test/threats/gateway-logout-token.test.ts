import assert from 'node:assert/strict';
import type { JWK } from 'jose';
import { type LoginWorld, loginWorld } from '../support/gateway/login-world.js';

const HOUR = 3_600_000;
const EVENT = 'http://schemas.openid.net/event/backchannel-logout';

describe('T47 the word of an issuer that it has ended a session', function () {
  this.timeout(30_000);
  let world: LoginWorld;
  let stranger: JWK;

  before(async () => {
    world = await loginWorld();
    stranger = await world.issuer.newKey('a');
  });

  after(() => world[Symbol.asyncDispose]());

  const now = () => Math.floor(world.clock.now() / 1000);
  const told = async (token: string) => (await world.postLogout(`logout_token=${token}`)).status;

  it('ends every session of the person, where it names no session', async () => {
    const [one, two, bob] = [await world.loggedIn(), await world.loggedIn(), await world.loggedIn('bob')];

    assert.equal(await told(await world.logoutToken({ sub: 'ada' })), 200);

    assert.deepEqual([await world.me(one), await world.me(two), await world.me(bob)], [401, 401, 200]);
  });

  it('ends nothing where it names the session of another person', async () => {
    const ada = await world.loggedIn();

    assert.equal(await told(await world.logoutToken({ sub: 'bob', sid: 'x' })), 200);
    assert.equal(await told(await world.logoutToken({ sub: undefined, sid: 'x' })), 200);

    assert.equal(await world.me(ada), 200);
  });

  it('is believed of issuers that write its type as it was, or not at all', async () => {
    for (const typ of ['logout+jwt', 'JWT', undefined]) {
      assert.equal(await told(await world.logoutToken({ sub: 'nobody' }, { typ })), 200, typ);
    }
  });

  describe('ends nothing', () => {
    const cases: Readonly<Record<string, () => Promise<string>>> = {
      'signed by another': () => world.logoutToken({}, {}, stranger),
      'signed with a key that the issuer has not': () => world.logoutToken({}, { kid: 'b' }),
      'signed by nobody': async () => {
        const [, payload] = (await world.logoutToken()).split('.');
        return `${Buffer.from('{"alg":"none","kid":"a"}').toString('base64url')}.${payload}.`;
      },
      'of another issuer': () => world.logoutToken({ iss: 'https://evil.test' }),
      'without issuer': () => world.logoutToken({ iss: undefined }),
      'for another client': () => world.logoutToken({ aud: 'other' }),
      'for us and others': () => world.logoutToken({ aud: ['gateway', 'other'] }),
      'for nobody': () => world.logoutToken({ aud: undefined }),
      'that has a nonce, as an ID token': () => world.logoutToken({ nonce: 'n' }),
      'without event': () => world.logoutToken({ events: undefined }),
      'with another event': () => world.logoutToken({ events: { 'https://x.test/event': {} } }),
      'with an event that is no object': () => world.logoutToken({ events: { [EVENT]: true } }),
      'with events that are a list': () => world.logoutToken({ events: [EVENT] }),
      'that names nobody': () => world.logoutToken({ sub: undefined }),
      'that names nobody in another way': () => world.logoutToken({ sub: '', sid: 7 }),
      'without id': () => world.logoutToken({ jti: undefined }),
      'with an id that is none': () => world.logoutToken({ jti: '' }),
      'that has expired': () => world.logoutToken({ exp: now() - 10 }),
      'without an end': () => world.logoutToken({ exp: undefined }),
      'without a beginning': () => world.logoutToken({ iat: undefined }),
      'of long ago, however long it is good': () => world.logoutToken({ iat: now() - 601, exp: now() + 3600 }),
      'of the future': () => world.logoutToken({ iat: now() + 60 }),
      'of another type': () => world.logoutToken({}, { typ: 'at+jwt' }),
      'with a critical member that nobody knows': async () => {
        const [, payload, signature] = (await world.logoutToken()).split('.');
        const header = Buffer.from('{"alg":"ES256","kid":"a","crit":["x"],"x":1}').toString('base64url');
        return `${header}.${payload}.${signature}`;
      },
    };

    for (const [what, make] of Object.entries(cases)) {
      it(what, async () => {
        const ada = await world.loggedIn();

        const { status, code, body } = await world.postLogout(`logout_token=${await make()}`);

        assert.deepEqual([status, code], [400, 'logout-refused']);
        // The id is random, and may spell a name.
        assert.doesNotMatch(body.replace(/urn:request:[0-9a-f-]+/, ''), /ada|key|nonce/);
        assert.equal(await world.me(ada), 200);
      });
    }

    it('a second time', async () => {
      const token = await world.logoutToken();
      assert.equal(await told(token), 200);
      const ada = await world.loggedIn();

      assert.equal(await told(token), 400);

      assert.equal(await world.me(ada), 200);
    });

    it('beside another one', async () => {
      const [one, two] = [await world.logoutToken(), await world.logoutToken()];
      const ada = await world.loggedIn();

      assert.equal((await world.postLogout(`logout_token=${one}&logout_token=${two}`)).status, 400);

      assert.equal(await world.me(ada), 200);
    });

    it('and says nothing of why, but to the operator', async () => {
      await world.postLogout(`logout_token=${await world.logoutToken({ nonce: 'canary-nonce' })}`);

      const detail = world.gateway.events('request-refused').at(-1)?.detail ?? '';
      assert.match(detail, /it has a nonce/);
      assert.doesNotMatch(detail, /canary/);
    });
  });

  it('cannot be believed when the keys of the issuer have become too old: it is asked to come again', async () => {
    await using old = await loginWorld();
    old.issuer.breakDown(true);
    old.clock.jump(12 * HOUR + 1);

    const { status, headers } = await old.postLogout(`logout_token=${await old.logoutToken()}`);

    assert.deepEqual([status, headers['retry-after']], [503, '5']);
  });
});
