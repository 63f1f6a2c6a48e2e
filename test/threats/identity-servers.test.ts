import assert from 'node:assert/strict';
import { allow, type Selector } from '@sallyport/core';
import { grpcJsServer, impostors, nodeTlsServer } from '../support/attacks/impostors.js';
import { assertFields } from '../support/attacks/stronghold.js';
import { failureOf, traveller } from '../support/attacks/traveller.js';
import { CANARY, TREASURE, Vault } from '../support/attacks/vault.js';
import { echoWorld } from '../support/echo.js';
import { forEachLane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

forEachLane((lane) => {
  describe('a registry record that points to another service', () => {
    requireOpenssl();

    for (const kind of impostors) {
      for (const other of ['billing', 'vault2', 'vaul']) {
        it(`T20 refuses the valid certificate of ${other} where vault was meant (${kind.name})`, async () => {
          await using client = await traveller(lane);
          const { mesh } = client;
          const presented = mesh.id(other);

          const error = await client.refuses(
            kind,
            { credentials: mesh.authority.issue({ id: presented }) },
            { reason: 'wrong-identity', presented },
          );

          assert.ok(error.message.includes(`${presented} answered, expected ${mesh.id('vault')}`), error.message);
        });
      }
    }

    it('T20 refuses a running service of the mesh that is not the one that was meant', async () => {
      await using client = await traveller(lane);
      const { mesh, vault } = client;
      const billing = mesh.service('billing', {
        authorize: [allow({ from: mesh.id('web'), to: 'threats.v1.Vault/*' })],
      });
      let handled = 0;
      const handle = () => {
        handled++;
        return { content: 'forged' };
      };
      billing.handle(Vault, { open: handle, hold: handle, watch: ranAnyway });
      await billing.start();
      const [endpoint] = billing.endpoints;
      assert.ok(endpoint);
      await client.pointAt(endpoint);

      const error = await failureOf(vault.open({ note: CANARY }));

      assert.equal(error.status, 'UNAVAILABLE');
      assert.equal(handled, 0);
      const [alarm] = client.events.filter(({ type }) => type === 'server-identity-refused');
      assert.ok(alarm);
      assertFields(alarm, { target: 'vault', reason: 'wrong-identity', presented: mesh.id('billing') });
      assert.equal((await client.web.client(Vault, { service: 'billing' }).open({ note: CANARY })).content, 'forged');
      await client.calls(nodeTlsServer);
    });

    it('T20 refuses it for a stream as well', async () => {
      await using client = await traveller(lane);
      const { mesh, good } = client;
      await using impostor = await nodeTlsServer.open({
        ...good,
        credentials: mesh.authority.issue({ id: mesh.id('billing') }),
      });
      await client.pointAt(impostor.endpoint);

      const error = await failureOf(client.vault.watch({ note: CANARY })[Symbol.asyncIterator]().next());

      assert.equal(error.status, 'UNAVAILABLE');
      assert.match(error.message, /wrong-identity/);
      assert.equal(impostor.heard, '');
      await client.calls(nodeTlsServer);
    });

    it('T20 calls the true instance when a poisoned record stands beside it, and sends the other nothing', async () => {
      await using client = await traveller(lane);
      const { mesh, good, web } = client;
      await using truth = await grpcJsServer.open(good);
      await using impostor = await nodeTlsServer.open({
        ...good,
        credentials: mesh.authority.issue({ id: mesh.id('billing') }),
      });
      await client.register('vault', impostor.endpoint);
      await client.register('vault', truth.endpoint);

      const worst: Selector = {
        name: 'impostor first',
        pick: (candidates) =>
          candidates.find(({ instance }) => instance.endpoints[0]?.port === impostor.endpoint.port) ?? candidates[0],
      };
      const vault = web.client(Vault, { service: 'vault', selector: worst });

      const answers = [await vault.open({ note: CANARY }), await vault.open({ note: CANARY })];

      assert.deepEqual(answers, [{ content: TREASURE }, { content: TREASURE }]);
      assert.equal(impostor.heard, '');
      const [alarm] = client.events.filter(({ type }) => type === 'server-identity-refused');
      assert.ok(alarm);
      assertFields(alarm, { reason: 'wrong-identity', presented: mesh.id('billing') });
    });

    it('T20 believes the identity that the client was given, not the one in the record', async () => {
      await using client = await traveller(lane);
      const { mesh, good, web } = client;
      const id = mesh.id('archive');
      await using server = await nodeTlsServer.open({ ...good, credentials: mesh.authority.issue({ id }) });
      await client.register('annex', server.endpoint);

      const error = await failureOf(web.client(Vault, { service: 'annex' }).open({ note: CANARY }));
      const answer = await web.client(Vault, { service: 'annex', identity: id }).open({ note: CANARY });

      assert.match(error.message, /wrong-identity/);
      assert.deepEqual(answer, { content: TREASURE });
    });
  });
});

function ranAnyway(): never {
  throw new Error('a handler ran');
}

describe('a server whose certificate expires', () => {
  it('T06 gets no further call on a connection from before, and no new connection', async () => {
    await using world = await echoWorld({ certificate: { ttlMs: 2000 } });
    const refused: string[] = [];
    world.web.on('server-identity-refused', ({ reason }) => refused.push(reason));
    await world.client.say({ text: 'in time' });

    await new Promise((resolve) => setTimeout(resolve, 2500));
    const error = await failureOf(world.client.say({ text: 'too late' }));

    assert.equal(error.status, 'UNAVAILABLE');
    assert.deepEqual(refused, ['expired']);
  });
});
