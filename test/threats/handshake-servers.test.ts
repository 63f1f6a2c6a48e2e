import assert from 'node:assert/strict';
import { forgeries, oneOfEachThreat } from '../support/attacks/forgeries.js';
import { grpcJsServer, nodeTlsServer, opensslServer, plaintextServer } from '../support/attacks/impostors.js';
import { failureOf, traveller } from '../support/attacks/traveller.js';
import { CANARY } from '../support/attacks/vault.js';
import { forEachLane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

// `refuses` proves each time that a server of the same kind is called when it shows what fits.
forEachLane((lane) => {
  describe('the handshake of a server', () => {
    requireOpenssl();

    for (const [kind, shown] of [
      [nodeTlsServer, forgeries],
      [grpcJsServer, oneOfEachThreat],
      [opensslServer, oneOfEachThreat],
    ] as const) {
      it(`calls a server with a fitting certificate (${kind.name})`, async () => {
        await using client = await traveller(lane);

        await client.calls(kind);
      });

      for (const { threat, what, forge, reason, reasonAtClient = reason } of shown) {
        it(`${threat} refuses a server with ${what} (${kind.name})`, async () => {
          await using client = await traveller(lane);
          const { authority, trustDomain } = client.mesh;

          await client.refuses(
            kind,
            { credentials: forge(authority, `spiffe://${trustDomain}/svc/vault`) },
            { reason: reasonAtClient },
          );
        });
      }
    }

    for (const kind of [nodeTlsServer, opensslServer]) {
      for (const version of ['TLSv1.1', 'TLSv1.2'] as const) {
        it(`T02 refuses a server of ${version} (${kind.name})`, async () => {
          await using client = await traveller(lane);

          await client.refuses(kind, { version }, { reason: 'tls-version' });
        });
      }

      for (const alpn of [[], ['http/1.1']]) {
        it(`T21 refuses a server that takes ${alpn.join() || 'no protocol'} (${kind.name})`, async () => {
          await using client = await traveller(lane);

          await client.refuses(kind, { alpn }, { reason: 'alpn' });
        });
      }
    }

    for (const [what, greeting] of [
      ['HTTP/2 in plaintext', Buffer.from('000000040000000000', 'hex')],
      ['HTTP/1.1 in plaintext', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
      ['an SSH banner', Buffer.from('SSH-2.0-OpenSSH_9.2p1\r\n')],
    ] as const) {
      it(`T01 refuses a server that speaks ${what}`, async () => {
        await using client = await traveller(lane);
        await using impostor = await plaintextServer(greeting);

        await client.refusesServer(impostor, { reason: 'not-tls' });
        await client.calls(nodeTlsServer);
      });
    }

    it('T24 gives up on a server that accepts and says nothing, within the connect timeout', async () => {
      await using client = await traveller(lane, { connectTimeoutMs: 200 });
      await using mute = await plaintextServer(Buffer.alloc(0));
      const startedAt = Date.now();

      await client.refusesServer(mute, { reason: 'timeout' });

      assert.ok(Date.now() - startedAt < 1000);
      await client.calls(nodeTlsServer);
    });

    it('T24 ends a call to a mute server by its deadline, where that comes first', async () => {
      await using client = await traveller(lane, { connectTimeoutMs: 1000 });
      await using mute = await plaintextServer(Buffer.alloc(0));
      await client.pointAt(mute.endpoint);
      const startedAt = Date.now();

      const error = await failureOf(client.vault.open({ note: CANARY }, { deadlineMs: 100 }));

      assert.equal(error.status, 'DEADLINE_EXCEEDED');
      assert.ok(Date.now() - startedAt < 500);
      await client.calls(nodeTlsServer);
    });
  });
});
