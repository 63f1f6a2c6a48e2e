import assert from 'node:assert/strict';
import { AddressCount } from '@sallyport/gateway/spi';

describe('the connections of one address', () => {
  it('are no more than it may have, until one is over', () => {
    const count = new AddressCount(2);

    assert.deepEqual(
      [count.enter('192.0.2.1'), count.enter('192.0.2.1'), count.enter('192.0.2.1'), count.enter('192.0.2.2')],
      [true, true, false, true],
    );
    count.leave('192.0.2.1');
    assert.equal(count.enter('192.0.2.1'), true);
  });

  it('are those of a whole IPv6 network: one customer has 2^64 addresses', () => {
    const count = new AddressCount(2);

    assert.deepEqual(
      [count.enter('2001:db8:0:1::1'), count.enter('2001:db8:0:1:ffff::2'), count.enter('2001:db8:0:1::3')],
      [true, true, false],
    );
    assert.equal(count.enter('2001:db8:0:2::1'), true);
  });

  it('are told apart where a socket for both families spells IPv4 as IPv6', () => {
    const count = new AddressCount(1);

    assert.deepEqual([count.enter('::ffff:192.0.2.1'), count.enter('::ffff:192.0.2.2')], [true, true]);
    assert.equal(count.enter('192.0.2.1'), false);
  });
});
