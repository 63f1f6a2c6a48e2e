import assert from 'node:assert/strict';
import dns from 'node:dns';
import { allowedLookup } from '@sallyport/sidecar/spi';
import sinon from 'sinon';

/** What a resolver answers that somebody else controls. */
function resolvingTo(...addresses: string[]) {
  return sinon.stub(dns, 'lookup').callsFake(((
    _host: string,
    _options: object,
    callback: (...args: unknown[]) => void,
  ) =>
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    )) as never);
}

function lookUp(allowLoopback: boolean, all: boolean) {
  return new Promise((resolve, reject) => {
    allowedLookup({ allowLoopback })('ledger.example', { all }, (error, address) =>
      error ? reject(error) : resolve(address),
    );
  });
}

describe('the lookup of upstreams by name', () => {
  afterEach(() => sinon.restore());

  for (const address of ['169.254.169.254', '::ffff:169.254.169.254', '127.0.0.1', '::1', '0.0.0.0', 'fe80::1']) {
    it(`T64 refuses a name that stands for ${address} (DNS rebinding)`, async () => {
      resolvingTo(address);

      await assert.rejects(lookUp(false, false), /forbidden address/);
    });
  }

  it('T64 keeps those of its addresses that may be dialled', async () => {
    resolvingTo('169.254.169.254', '10.0.0.7');

    assert.deepEqual(await lookUp(false, true), [{ address: '10.0.0.7', family: 4 }]);
    assert.equal(await lookUp(false, false), '10.0.0.7');
  });

  it('takes this machine where the configuration names it', async () => {
    resolvingTo('127.0.0.1');

    assert.equal(await lookUp(true, false), '127.0.0.1');
  });
});
