import assert from 'node:assert/strict';
import { Networks, networkOf, networkSchema } from '@sallyport/core/spi';

describe('networks of options', () => {
  it('hold addresses by their meaning, not by their spelling', () => {
    const networks = new Networks(['10.1.0.0/16', '192.0.2.7', 'fd00::/8']);

    for (const address of ['10.1.255.9', '::ffff:10.1.0.1', '192.0.2.7', 'fd12:0:0::1'])
      assert.ok(networks.includes(address), address);
    for (const address of ['10.2.0.1', '::ffff:10.2.0.1', '192.0.2.8', 'fe80::1', '', 'localhost', '10.1'])
      assert.ok(!networks.includes(address), address);
  });

  it('are refused where they are none, or nearly everybody', () => {
    const isNetwork = (text: string) => networkSchema.safeParse(text).success;

    for (const text of ['10.0.0.1', '10.0.0.0/8', '::1', 'fd00::/8']) assert.ok(isNetwork(text), text);
    for (const text of ['', '10.0.0.0/33', '10.0.0.0/1', '0.0.0.0/0', '::/0', '10.0.0.0/-8', '10.0.0.0/8/8', 'host'])
      assert.ok(!isNetwork(text), text);
  });
});

describe('what a limit counts as one place', () => {
  for (const [address, place] of [
    ['10.0.0.7', '10.0.0.7'],
    ['::ffff:10.0.0.7', '10.0.0.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:1:2::9', '2001:db8:1:2::/64'],
    ['2001:db8::7', '2001:db8:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['unknown', 'unknown'],
  ] as const) {
    it(`is ${place} for ${address}`, () => assert.equal(networkOf(address), place));
  }
});
