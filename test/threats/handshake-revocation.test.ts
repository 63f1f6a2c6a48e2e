import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { grpcJsServer, nodeTlsServer, opensslServer, resumingServer } from '../support/attacks/impostors.js';
import {
  type Approach,
  grpcJs,
  intruders,
  nodeTls,
  openssl,
  type ReturningIntruder,
} from '../support/attacks/intruders.js';
import { openLine, silentServer } from '../support/attacks/lines.js';
import { assertFields, type Stronghold, stronghold } from '../support/attacks/stronghold.js';
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

    for (const intruder of intruders) {
      it(`T08 refuses a client whose certificate is revoked (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { mesh, service } = target;
        const credentials = mesh.authority.issue({ id: mesh.id('web') });
        await target.serves(intruder, { credentials });
        mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });

        await target.refuses(intruder, { credentials }, { reason: 'revoked' });
      });
    }

    for (const intruder of [openssl, grpcJs]) {
      it(`T08 refuses a client below a revoked intermediate (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { mesh, service } = target;
        const { authority } = mesh;
        const middle = authority.intermediate();
        const credentials = middle.issue({ id: mesh.id('web') });
        const { serialNumber } = new X509Certificate(middle.certificatePem);
        const bundlePem = authority.bundlePem + middle.certificatePem;
        const listOfMiddle = middle.crl({ revoked: [] });
        mesh.rotate(service, { bundlePem, crlPems: [authority.crl({ revoked: [] }), listOfMiddle] });
        await target.serves(intruder, { credentials });
        mesh.rotate(service, { bundlePem, crlPems: [authority.crl({ revoked: [serialNumber] }), listOfMiddle] });

        await target.refuses(intruder, { credentials }, { reason: 'revoked' });
      });

      it(`T08 refuses a client below an intermediate that has no list (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { mesh, service } = target;
        const credentials = mesh.authority.intermediate().issue({ id: mesh.id('web') });
        await target.serves(intruder, { credentials });
        mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [] })] });

        await target.refuses(intruder, { credentials }, { reason: 'revocation-unknown' });
      });
    }

    it('T08 refuses every client once the list has run out, until there is a new one', async () => {
      await using target = await stronghold(lane);
      const { mesh, service } = target;
      const runsOutAt = Math.ceil((Date.now() + 300) / 1000) * 1000;
      mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [], nextUpdate: runsOutAt })] });
      await target.serves(nodeTls);
      await new Promise((resolve) => setTimeout(resolve, runsOutAt + 1000 - Date.now()));

      const attempt = await nodeTls.call(target.good);

      assert.equal(attempt.outcome, 'turned-away');
      await eventually(() => assert.equal(target.alarms().length, 1));
      for (const alarm of target.alarms()) assertFields(alarm, { reason: 'revocation-unknown' });
      mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [] })] });
      await target.serves(nodeTls);
      await target.stillServes();
    });

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

    for (const intruder of [nodeTls, openssl]) {
      it(`T09 would let a client without a certificate into a server that resumes (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        await using careless = await resumingServer(target.good);
        const approach = { ...target.good, door: careless.endpoint };
        const [session] = await intruder.collectSessions(approach);
        assert.ok(session);

        const attempt = await intruder.call({ ...approach, credentials: undefined, session });

        assert.equal(attempt.outcome, 'served');
      });

      it(`T09 does not bring a revoked client back (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { approach, sessions } = await revokedAfterVisit(target, intruder);

        for (const session of sessions) await target.refuses(intruder, { ...approach, session }, { reason: 'revoked' });
      });

      it(`T09 does not stand for the certificate (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { approach, sessions } = await revokedAfterVisit(target, intruder);

        for (const session of sessions) {
          await target.refuses(
            intruder,
            { ...approach, credentials: undefined, session },
            { reason: 'no-certificate' },
          );
        }
      });
    }
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

/** A client that was served, kept its sessions (and one that a careless server gave it), and was revoked then. */
async function revokedAfterVisit({ mesh, service, good }: Stronghold, intruder: ReturningIntruder) {
  const credentials = mesh.authority.issue({ id: mesh.id('web') });
  const approach: Approach = { ...good, credentials };
  await using careless = await resumingServer(good);
  const elsewhere = await intruder.collectSessions({ ...approach, door: careless.endpoint });
  const sessions = [...(await intruder.collectSessions(approach)), ...elsewhere];
  mesh.rotate(service, { crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });
  assert.notEqual(sessions.length, 0);
  return { approach, sessions };
}

async function drained(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}
