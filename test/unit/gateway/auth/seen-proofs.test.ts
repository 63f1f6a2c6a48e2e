import assert from 'node:assert/strict';
import { SeenProofs } from '@sallyport/gateway/spi';

describe('proofs of possession that were used', () => {
  it('T47 are not good again, until nobody would take them anyway', () => {
    const seen = new SeenProofs(10, 10);

    assert.deepEqual([seen.add('a', 'key', 100, 0), seen.add('a', 'key', 100, 50)], ['new', 'used']);
    assert.equal(seen.add('a', 'key', 200, 100), 'new');
  });

  it('are refused when they cannot be remembered', () => {
    const seen = new SeenProofs(2, 2);

    assert.deepEqual([seen.add('a', 'one', 100, 0), seen.add('b', 'two', 100, 0)], ['new', 'new']);
    assert.equal(seen.add('c', 'three', 100, 0), 'full');
    assert.equal(seen.add('c', 'three', 200, 100), 'new');
  });

  it('of one key take no room of other keys', () => {
    const seen = new SeenProofs(10, 2);

    assert.deepEqual(
      ['a', 'b', 'c'].map((id) => seen.add(id, 'greedy', 100, 0)),
      ['new', 'new', 'full'],
    );
    assert.equal(seen.add('d', 'other', 100, 0), 'new');
    assert.equal(seen.add('e', 'greedy', 200, 100), 'new');
  });
});
