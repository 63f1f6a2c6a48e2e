import assert from 'node:assert/strict';
import { RateLimiter } from '@sallyport/pki/spi';
import { fakeClock } from '@sallyport/testing';

describe('a rate limiter', () => {
  it('admits a burst, then as many as the rate lets it', async () => {
    const clock = fakeClock();
    const limiter = new RateLimiter({ clock, perMinute: 60, burst: 2, maxKeys: 10 });

    const first = [limiter.admit('a'), limiter.admit('a'), limiter.admit('a')];
    await clock.advance(1000);
    const later = [limiter.admit('a'), limiter.admit('a')];

    assert.deepEqual(first, [undefined, undefined, 1000]);
    assert.deepEqual(later, [undefined, 1000]);
  });

  it('counts each key for itself', () => {
    const limiter = new RateLimiter({ clock: fakeClock(), perMinute: 60, burst: 1, maxKeys: 10 });

    assert.deepEqual([limiter.admit('a'), limiter.admit('b'), limiter.admit('a')], [undefined, undefined, 1000]);
  });

  it('forgets the key that was silent for longest when its table is full', () => {
    const limiter = new RateLimiter({ clock: fakeClock(), perMinute: 60, burst: 1, maxKeys: 2 });
    for (const key of ['a', 'b', 'c']) limiter.admit(key);

    assert.equal(limiter.admit('b'), 1000);
    assert.equal(limiter.admit('a'), undefined);
  });
});
