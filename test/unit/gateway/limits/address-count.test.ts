import assert from 'node:assert/strict';
import { AddressCount } from '@sallyport/gateway/spi';

describe('what one address has open', () => {
  it('are no more than it may have, until one is over', () => {
    const count = new AddressCount(2);
    const leave = count.enter('192.0.2.1');

    assert.deepEqual(
      ['192.0.2.1', '192.0.2.1', '192.0.2.2'].map((address) => count.enter(address) !== undefined),
      [true, false, true],
    );
    leave?.();
    assert.ok(count.enter('192.0.2.1'));
    assert.equal(count.enter('192.0.2.1'), undefined);
  });

  it('are those of a whole IPv6 network: one customer has 2^64 addresses', () => {
    const count = new AddressCount(2);

    assert.deepEqual(
      ['2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:db8:0:1::3'].map((one) => count.enter(one) !== undefined),
      [true, true, false],
    );
    assert.ok(count.enter('2001:db8:0:2::1'));
  });

  it('are told apart where a socket for both families spells IPv4 as IPv6', () => {
    const count = new AddressCount(1);

    assert.ok(count.enter('::ffff:192.0.2.1'));
    assert.ok(count.enter('::ffff:192.0.2.2'));
    assert.equal(count.enter('192.0.2.1'), undefined);
  });
});
