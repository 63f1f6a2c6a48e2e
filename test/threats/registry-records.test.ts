import assert from 'node:assert/strict';
import type { Selector } from '@sallyport/core';
import { grpcJsServer, nodeTlsServer } from '../support/attacks/impostors.js';
import { failureOf, traveller } from '../support/attacks/traveller.js';
import { CANARY, TREASURE, Vault } from '../support/attacks/vault.js';
import { forEachLane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

forEachLane((lane) => {
  describe('a record that somebody wrote into the registry', () => {
    requireOpenssl();

    for (const host of ['169.254.169.254', 'fd00:ec2::254', '224.0.0.1']) {
      it(`T38 leads no call to ${host}`, async () => {
        await using client = await traveller(lane);

        await client.register('vault', { host, port: 443 });
        const error = await failureOf(client.web.client(Vault, { service: 'vault' }).open({ note: CANARY }));

        assert.equal(error.status, 'UNAVAILABLE');
        assert.ok(client.events.some(({ type }) => type === 'registry-record-refused'));
        await client.calls(nodeTlsServer);
      });
    }

    it('T39 replayed after its service has left, leads no call to who listens there now', async () => {
      await using client = await traveller(lane);
      const { mesh, good, web } = client;
      await using successor = await nodeTlsServer.open({
        ...good,
        credentials: mesh.authority.issue({ id: mesh.id('successor') }),
      });
      await using truth = await grpcJsServer.open(good);
      await client.register('vault', successor.endpoint);
      await client.register('vault', truth.endpoint);
      const vault = web.client(Vault, { service: 'vault', selector: first(successor.endpoint.port) });

      assert.deepEqual(await vault.open({ note: CANARY }), { content: TREASURE });

      assert.equal(successor.heard, '');
      assert.ok(client.events.some(({ type }) => type === 'server-identity-refused'));
    });

    it('T39 replayed after its service has left, costs no call where nobody listens now', async () => {
      await using client = await traveller(lane);
      const { good, web } = client;
      const gone = await grpcJsServer.open(good);
      const { endpoint } = gone;
      await gone[Symbol.asyncDispose]();
      await using truth = await grpcJsServer.open(good);
      await client.register('vault', endpoint);
      await client.register('vault', truth.endpoint);
      const vault = web.client(Vault, { service: 'vault', selector: first(endpoint.port) });

      assert.deepEqual(await vault.open({ note: CANARY }), { content: TREASURE });
    });
  });
});

function first(port: number): Selector {
  return {
    name: 'stale first',
    pick: (candidates) => candidates.find(({ instance }) => instance.endpoints[0]?.port === port) ?? candidates[0],
  };
}
