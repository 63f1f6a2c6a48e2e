import { constrainedChain, forgeries, oneOfEachThreat } from '../support/attacks/forgeries.js';
import {
  callers,
  grpcJs,
  intruders,
  openssl,
  plaintextIntruders,
  protocolChoosers,
} from '../support/attacks/intruders.js';
import { stronghold } from '../support/attacks/stronghold.js';
import { forEachLane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

// `refuses` proves each time that the same tool gets in when it comes with what fits.
forEachLane((lane) => {
  describe('the handshake of a client', () => {
    requireOpenssl();

    for (const intruder of intruders) {
      it(`lets a client with a fitting certificate in (${intruder.name})`, async () => {
        await using target = await stronghold(lane);

        await target.serves(intruder);
      });

      it(`T03 refuses a client without a certificate (${intruder.name})`, async () => {
        await using target = await stronghold(lane);

        await target.refuses(intruder, { credentials: undefined }, { reason: 'no-certificate' });
      });

      for (const version of ['TLSv1.1', 'TLSv1.2'] as const) {
        it(`T02 refuses a client of ${version} (${intruder.name})`, async () => {
          await using target = await stronghold(lane);

          await target.refuses(intruder, { version }, { reason: 'tls-version' });
        });
      }
    }

    for (const intruder of plaintextIntruders) {
      it(`T01 refuses plaintext (${intruder.name})`, async () => {
        await using target = await stronghold(lane);

        await target.refuses(intruder, {}, { reason: 'not-tls' });
      });
    }

    for (const intruder of protocolChoosers) {
      for (const alpn of [[], ['http/1.1'], ['h2c', 'grpc-exp']]) {
        it(`T21 refuses a client that offers ${alpn.join(' and ') || 'no protocol'} (${intruder.name})`, async () => {
          await using target = await stronghold(lane);

          await target.refuses(intruder, { alpn }, { reason: 'alpn' });
        });
      }
    }

    for (const [intruder, shown] of [
      [openssl, forgeries],
      [grpcJs, oneOfEachThreat],
    ] as const) {
      for (const { threat, what, forge, reason } of shown) {
        it(`${threat} refuses a client with ${what} (${intruder.name})`, async () => {
          await using target = await stronghold(lane);
          const { authority, trustDomain } = target.mesh;

          await target.refuses(
            intruder,
            { credentials: forge(authority, `spiffe://${trustDomain}/svc/web`) },
            { reason },
          );
        });
      }

      it(`T23 lets a client in whose chain keeps its constraints (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { mesh } = target;

        await target.serves(intruder, { credentials: constrainedChain(mesh.authority, mesh.id('web')) });
      });
    }

    for (const intruder of callers) {
      it(`T22 takes a client for what its URI says, whatever was injected beside it (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const { mesh } = target;
        const credentials = mesh.authority.issueRaw({
          subjectAltName: { names: [{ dns: `vault.test, URI:${mesh.id('web')}` }, { uri: mesh.id('guest') }] },
        });

        await target.refuses(intruder, { credentials }, { type: 'call-denied', peer: mesh.id('guest') });
      });
    }
  });
});
