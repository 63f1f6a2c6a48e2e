import assert from 'node:assert/strict';
import { describeResumption, describeRevocation } from '../support/attacks/handshake-suite.js';
import { grpcJsServer, nodeTlsServer, opensslServer } from '../support/attacks/impostors.js';
import { grpcJs, intruders } from '../support/attacks/intruders.js';
import { openLine, silentServer } from '../support/attacks/lines.js';
import { assertFields, stronghold } from '../support/attacks/stronghold.js';
import { failureOf, traveller } from '../support/attacks/traveller.js';
import { CANARY, Vault } from '../support/attacks/vault.js';
import { eventually } from '../support/eventually.js';
import { forEachLane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

/** Far above what it takes, and the promise of T10. */
const EVICTION_MS = 1000;

forEachLane((lane) => {
  describe('a revoked certificate', () => {
    requireOpenssl();

    describeRevocation({ open: () => stronghold(lane), intruders, usual: grpcJs });

    for (const kind of [nodeTlsServer, grpcJsServer, opensslServer]) {
      it(`T08 refuses a server whose certificate is revoked (${kind.name})`, async () => {
        await using client = await traveller(lane);
        const { mesh, web } = client;
        const credentials = mesh.authority.issue({ id: mesh.id('vault') });
        await client.calls(kind, { credentials });
        mesh.rotate(web, { crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });

        await client.refuses(kind, { credentials }, { reason: 'revoked' });
      });
    }
  });

  describe('a session from before the revocation', () => {
    requireOpenssl();

    describeResumption({ open: () => stronghold(lane) });
  });

  describe('a revocation while connections are open', () => {
    it('T10 ends the calls of the revoked client within a second and no others', async () => {
      await using target = await stronghold(lane);
      const { mesh, service, good } = target;
      const credentials = mesh.authority.issue({ id: mesh.id('web') });
      await using revoked = await openLine({ ...good, credentials });
      await using other = await openLine(good);
      mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [] })] });
      assert.deepEqual([revoked.ended, other.ended], [0, 0]);
      const revokedAt = Date.now();

      mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });

      await eventually(() => assert.ok(revoked.closed && revoked.ended === 2), EVICTION_MS);
      assert.ok(Date.now() - revokedAt < EVICTION_MS);
      const [alarm, ...more] = target.alarms();
      assert.ok(alarm);
      assertFields(alarm, { type: 'connection-closed-by-policy', reason: 'revoked', peer: mesh.id('web') });
      assert.deepEqual(more, []);
      assert.equal(other.ended, 0);
      assert.ok(await other.isServed());
      target.tellsNoSecret(credentials, good.credentials);
      await target.stillServes();
    });

    it('T10 ends the calls to a revoked server within a second and no others', async () => {
      await using client = await traveller(lane);
      const { mesh, web, vault } = client;
      const credentials = mesh.authority.issue({ id: mesh.id('vault') });
      await using revoked = await silentServer({ ...client.good, credentials });
      await using other = await silentServer({
        ...client.good,
        credentials: mesh.authority.issue({ id: mesh.id('annex') }),
      });
      await client.pointAt(revoked.endpoint);
      await client.register('annex', other.endpoint);
      const annex = web.client(Vault, { service: 'annex' });
      const cancel = new AbortController();
      const doomed = [failureOf(vault.hold({ note: CANARY })), failureOf(drained(vault.watch({ note: CANARY })))];
      const untouched = failureOf(annex.hold({ note: CANARY }, { signal: cancel.signal }));
      await eventually(() => assert.deepEqual([revoked.calls, other.calls], [2, 1]));
      const revokedAt = Date.now();

      mesh.rotate(web, { crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });

      for (const error of await Promise.all(doomed)) assert.equal(error.status, 'UNAVAILABLE', error.message);
      assert.ok(Date.now() - revokedAt < EVICTION_MS);
      const alarms = client.events.filter(({ type }) => type === 'connection-closed-by-policy');
      assert.equal(alarms.length, 1);
      for (const alarm of alarms) assertFields(alarm, { reason: 'revoked', peer: mesh.id('vault') });
      assert.equal((await failureOf(vault.open({ note: CANARY }))).status, 'UNAVAILABLE');
      assert.equal(revoked.calls, 2, 'the revoked server was called again');
      assert.equal(other.ended, 0);
      cancel.abort();
      assert.equal((await untouched).status, 'CANCELLED');
      await client.calls(nodeTlsServer);
    });
  });
});

async function drained(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}
