import assert from 'node:assert/strict';
import { LocalRateLimits } from '@sallyport/gateway/spi';
import { fakeClock } from '@sallyport/testing';

const MAX_KEYS = 100_000;
const WINDOW_MS = 60_000;

describe('the counts of rate limits in this process', () => {
  /** What a caller has used with this request among them. */
  function counting(limits: LocalRateLimits) {
    const store = limits.open(['all']);
    return async (key: string) => (await store.count('all', key, WINDOW_MS)).used;
  }

  it('remember so many callers and no more: the one whose window ends first is forgotten', async () => {
    const used = counting(new LocalRateLimits(fakeClock()));
    for (let n = 0; n < MAX_KEYS; n++) await used(`caller ${n}`);

    assert.equal(await used('caller 0'), 2, 'the table was full before its time');
    assert.equal(await used('one too many'), 1);

    assert.equal(await used('caller 1'), 2);
    assert.equal(await used(`caller ${MAX_KEYS - 1}`), 2);
    assert.equal(await used('one too many'), 2);
    assert.equal(await used('caller 0'), 1);
  });

  it('forget callers whose window is over, before any other', async () => {
    const clock = fakeClock();
    const used = counting(new LocalRateLimits(clock));
    for (let n = 0; n < MAX_KEYS / 2; n++) await used(`early ${n}`);
    await clock.advance(WINDOW_MS / 2);
    for (let n = 0; n < MAX_KEYS / 2; n++) await used(`late ${n}`);
    await clock.advance(WINDOW_MS / 2);

    for (let n = 0; n < MAX_KEYS / 2; n++) await used(`new ${n}`);

    assert.equal(await used('late 0'), 2);
    assert.equal(await used('early 0'), 1);
  });
});
