import assert from 'node:assert/strict';
import { TokenCache } from '@sallyport/gateway/spi';

const FOR_EVER = Number.POSITIVE_INFINITY;

describe('the cache of verified tokens', () => {
  it('gives nothing back once its time is over', () => {
    const cache = new TokenCache<string>(10);
    cache.set('a', 'A', 100);

    assert.equal(cache.get('a', 99), 'A');
    assert.equal(cache.get('a', 100), undefined);
    assert.equal(cache.size, 0);
  });

  it('gives nothing back once its time is over, however often it was asked for', () => {
    const cache = new TokenCache<string>(10);
    cache.set('a', 'A', 5000);

    for (let now = 1; now < 5000; now++) assert.equal(cache.get('a', now), 'A');
    assert.equal(cache.get('a', 5000), undefined);
  });

  it('forgets what was not asked for the longest time', () => {
    const cache = new TokenCache<string>(2);
    cache.set('a', 'A', FOR_EVER);
    cache.set('b', 'B', FOR_EVER);

    cache.get('a', 10_000);
    cache.set('c', 'C', FOR_EVER);

    assert.equal(cache.get('a', 10_001), 'A');
    assert.equal(cache.get('b', 10_001), undefined);
    assert.equal(cache.get('c', 10_001), 'C');
  });
});
