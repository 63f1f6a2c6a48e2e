import assert from 'node:assert/strict';
import { allow } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { constrainedChain, oneOfEachThreat } from '../support/attacks/forgeries.js';
import { grpcJsServer } from '../support/attacks/impostors.js';
import { grpcJs, nodeTls } from '../support/attacks/intruders.js';
import { openLine } from '../support/attacks/lines.js';
import { sourceKinds } from '../support/attacks/source-kinds.js';
import { stronghold } from '../support/attacks/stronghold.js';
import { traveller } from '../support/attacks/traveller.js';
import { eventually } from '../support/eventually.js';
import { forEachLane } from '../support/lanes.js';

const partner = createAuthority({ trustDomain: 'partner.test' });
const COURIER = 'spiffe://partner.test/svc/courier';
/** The promise of T10. */
const EVICTION_MS = 1000;

// Where an identity comes from must change nothing about whom it lets in: once more, one of each threat, by each source.
forEachLane((lane) => {
  for (const source of sourceKinds) {
    describe(`the handshake with an identity from ${source.name}`, () => {
      it('lets a client with a fitting chain in, and calls a server with a fitting one', async () => {
        await using target = await stronghold(lane, { source });
        await using client = await traveller(lane, { source });
        const { mesh } = target;

        await target.serves(grpcJs, { credentials: constrainedChain(mesh.authority, mesh.id('web')) });
        await client.calls(grpcJsServer);
      });

      for (const { threat, what, forge, reason, reasonAtClient = reason } of oneOfEachThreat) {
        it(`${threat} refuses a client with ${what}`, async () => {
          await using target = await stronghold(lane, { source });
          const { authority, trustDomain } = target.mesh;

          await target.refuses(
            grpcJs,
            { credentials: forge(authority, `spiffe://${trustDomain}/svc/web`) },
            { reason },
          );
        });

        it(`${threat} refuses a server with ${what}`, async () => {
          await using client = await traveller(lane, { source });
          const { authority, trustDomain } = client.mesh;

          await client.refuses(
            grpcJsServer,
            { credentials: forge(authority, `spiffe://${trustDomain}/svc/vault`) },
            { reason: reasonAtClient },
          );
        });
      }

      if (source.beginsLists) {
        it('T08 refuses a client whose certificate is revoked', async () => {
          await using target = await stronghold(lane, { source });
          const { mesh } = target;
          const credentials = mesh.authority.issue({ id: mesh.id('web') });
          await target.serves(grpcJs, { credentials });

          target.supply({ crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });

          await eventually(() => assert.ok(target.events.some(({ type }) => type === 'rotated')));
          await target.refuses(grpcJs, { credentials }, { reason: 'revoked' });
        });

        it('T10 ends the calls of a client that is revoked meanwhile within a second and no others', async () => {
          await using target = await stronghold(lane, { source });
          const { mesh, good } = target;
          const credentials = mesh.authority.issue({ id: mesh.id('web') });
          await using revoked = await openLine({ ...good, credentials });
          await using other = await openLine(good);

          target.supply({ crlPems: [mesh.authority.crl({ revoked: [credentials.serial] })] });

          await eventually(() => assert.ok(revoked.closed && revoked.ended === 2), EVICTION_MS);
          assert.equal(other.ended, 0);
          assert.ok(await other.isServed());
        });
      }

      it('T21 refuses a client that offers no protocol', async () => {
        await using target = await stronghold(lane, { source });

        await target.refuses(nodeTls, { alpn: [] }, { reason: 'alpn' });
      });

      if (source.federates) {
        it('T18 refuses an id of our domain that the CA of a federated one signed', async () => {
          await using target = await stronghold(lane, {
            source,
            rules: () => [allow({ from: COURIER, to: 'threats.v1.Vault/*' })],
          });
          const web = target.mesh.id('web');

          target.supply({ bundles: { 'partner.test': partner.bundlePem } });

          await eventually(() => assert.ok(target.events.some(({ type }) => type === 'rotated')));
          await target.serves(grpcJs, { credentials: partner.issue({ id: COURIER }) });
          const alarm = { reason: 'wrong-trust-domain', peer: web } as const;
          await target.refuses(grpcJs, { credentials: partner.issueRaw({ id: web }) }, alarm);
        });
      }
    });
  }
});
