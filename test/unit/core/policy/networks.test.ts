import assert from 'node:assert/strict';
import { Networks, networkSchema } from '@sallyport/core/spi';

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
