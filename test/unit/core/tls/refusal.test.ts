import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp, createServer as createTcpServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect } from 'node:tls';
import type { HandshakeRefusal } from '@sallyport/core';
import { clientTlsOptions, handshakeRefusal, serverTlsOptions } from '@sallyport/core/spi';
import { createAuthority, type IssuedIdentity } from '@sallyport/pki';
import { start } from '../../../support/child.js';
import { requireOpenssl } from '../../../support/openssl.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';
import { anyName, type Door, materialFrom, materialOf, openDoor, pemOf, prod, web } from './support.js';

const HOUR_MS = 3_600_000;
const past = { notBefore: Date.now() - 2 * HOUR_MS, notAfter: Date.now() - HOUR_MS };
const future = { notBefore: Date.now() + HOUR_MS, notAfter: Date.now() + 2 * HOUR_MS };
const stranger = createAuthority({ trustDomain: 'prod.acme' });
const revoked = prod.issue({ id: web });

/** Who comes, and why a server turns them away. */
const refusedCallers: [string, IssuedIdentity, HandshakeRefusal][] = [
  ['T05 of another authority', stranger.issue({ id: web }), 'untrusted-issuer'],
  ['T06 that has expired', prod.issueRaw({ id: web, ...past }), 'expired'],
  ['T07 that is not valid yet', prod.issueRaw({ id: web, ...future }), 'not-yet-valid'],
  ['T08 that is revoked', revoked, 'revoked'],
  ['T08 whose issuer has no revocation list', prod.intermediate().issue({ id: web }), 'revocation-unknown'],
  ['T17 for servers only', prod.issueRaw({ id: web, extendedKeyUsage: ['serverAuth'] }), 'untrusted-issuer'],
];

describe('refusal of a handshake', () => {
  describe('at the server', () => {
    let door: Door;
    beforeEach(async () => {
      const material = materialOf(web, { crl: [prod.crl({ revoked: [revoked.serial] })] });
      door = await openDoor({ ...serverTlsOptions(material), ALPNProtocols: ['h2'], handshakeTimeout: 150 });
    });
    afterEach(() => door.close());

    /** The server's reason for turning away what `act` sends it. */
    async function reasonFor(act: (socket: Socket) => void): Promise<HandshakeRefusal> {
      const refusal = door.refusal();
      const socket = connectTcp({ host: '127.0.0.1', port: door.port });
      socket.on('error', () => {});
      await once(socket, 'connect');
      act(socket);
      const { reason } = await refusal;
      socket.destroy();
      return reason;
    }

    async function reasonForClient(options: ConnectionOptions): Promise<HandshakeRefusal> {
      const { server } = await door.knock({ ...anyName, ca: prod.bundlePem, ALPNProtocols: ['h2'], ...options });
      assert.ok('reason' in server, 'the client was accepted');
      return server.reason;
    }

    for (const [who, { certificatePem: cert, privateKeyPem: key }, reason] of refusedCallers) {
      it(`${who.slice(0, 3)} names ${reason} for a certificate ${who.slice(4)}`, async () => {
        assert.equal(await reasonForClient({ cert, key }), reason);
      });
    }

    it('T04 names untrusted-issuer for a self-signed certificate', async () => {
      using folder = temporaryFolder();
      const self = createAuthority({ trustDomain: 'prod.acme' });
      await self.save(folder.path);
      const key = readFileSync(join(folder.path, 'authority.key'), 'utf8');
      door.server.setSecureContext(serverTlsOptions(materialOf()));
      assert.equal(await reasonForClient({ cert: self.certificatePem, key }), 'untrusted-issuer');
    });

    it('T03 names no-certificate', async () => {
      assert.equal(await reasonForClient({}), 'no-certificate');
    });

    it('T02 names tls-version', async () => {
      assert.equal(await reasonForClient({ maxVersion: 'TLSv1.2' }), 'tls-version');
    });

    it('T21 names alpn for a client that offers other protocols', async () => {
      const { certificatePem: cert, privateKeyPem: key } = prod.issue({ id: web });
      assert.equal(await reasonForClient({ cert, key, ALPNProtocols: ['http/1.1'] }), 'alpn');
    });

    for (const [what, text] of [
      ['plain HTTP', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n'],
      ['the preface of plain HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
      ['a proxy request', 'CONNECT a:443 HTTP/1.1\r\n\r\n'],
      ['garbage', 'garbage on the line, and more of it than a record header holds'],
      ['zeros', '\0'.repeat(64)],
    ] as const) {
      it(`T01 names not-tls for ${what}`, async () => {
        assert.equal(await reasonFor((socket) => socket.write(text)), 'not-tls');
      });
    }

    it('T24 names timeout for a caller who says nothing', async () => {
      assert.equal(await reasonFor(() => {}), 'timeout');
    });

    it('names aborted for a caller who hangs up', async () => {
      assert.equal(await reasonFor((socket) => socket.resetAndDestroy()), 'aborted');
      assert.equal(await reasonFor((socket) => socket.end(Buffer.from([22, 3, 1, 2, 0]))), 'aborted');
    });
  });

  describe('at the client', () => {
    const caller = materialOf('spiffe://prod.acme/svc/caller');

    async function reasonFor(door: Pick<Door, 'port'>, options: ConnectionOptions = {}): Promise<HandshakeRefusal> {
      const socket = connect({
        host: '127.0.0.1',
        port: door.port,
        ...clientTlsOptions(caller, 'prod.acme'),
        ...anyName,
        ...options,
      });
      socket.resume();
      const [error] = await once(socket, 'error');
      socket.destroy();
      return handshakeRefusal(error, socket).reason;
    }

    const refusedServers: [string, IssuedIdentity, HandshakeRefusal][] = [
      ['of another authority', stranger.issue({ id: web }), 'untrusted-issuer'],
      ['that has expired', prod.issueRaw({ id: web, ...past }), 'expired'],
      ['that is not valid yet', prod.issueRaw({ id: web, ...future }), 'not-yet-valid'],
      ['for clients only', prod.issueRaw({ id: web, extendedKeyUsage: ['clientAuth'] }), 'untrusted-issuer'],
    ];
    for (const [which, { certificatePem: cert, privateKeyPem: key }, reason] of refusedServers) {
      it(`names ${reason} for a server certificate ${which}`, async () => {
        const door = await openDoor({ cert, key });
        try {
          assert.equal(await reasonFor(door), reason);
        } finally {
          await door.close();
        }
      });
    }

    it('names revoked for a server certificate on the list', async () => {
      const { certificatePem: cert, privateKeyPem: key } = revoked;
      const door = await openDoor({ cert, key });
      const informed = materialOf(web, { crl: [prod.crl({ revoked: [revoked.serial] })] });
      try {
        assert.equal(await reasonFor(door, clientTlsOptions(informed, 'prod.acme')), 'revoked');
      } finally {
        await door.close();
      }
    });

    it('names tls-version for a server that speaks TLS 1.2', async () => {
      const { certificatePem: cert, privateKeyPem: key } = prod.issue({ id: web });
      const door = await openDoor({ cert, key, maxVersion: 'TLSv1.2' });
      try {
        assert.equal(await reasonFor(door), 'tls-version');
      } finally {
        await door.close();
      }
    });

    it('names not-tls for a server that speaks plain text, and aborted for one that hangs up', async () => {
      for (const [answer, reason] of [
        ['HTTP/1.1 400 Bad Request\r\n\r\n', 'not-tls'],
        [undefined, 'aborted'],
      ] as const) {
        const server = createTcpServer((socket) => {
          socket.on('error', () => {});
          socket.resume();
          if (answer === undefined) socket.destroy();
          else socket.end(answer);
        });
        server.listen(0, '127.0.0.1');
        await once(server, 'listening');
        const { port } = server.address() as { port: number };
        assert.equal(await reasonFor({ port }), reason);
        await new Promise((resolve) => server.close(resolve));
      }
    });
  });

  describe('of and by the openssl command', () => {
    requireOpenssl();

    it('names what the alert of a strict openssl server says of our certificate', async () => {
      using folder = temporaryFolder();
      const server = prod.issue({ id: web });
      const args = [
        '-cert',
        folder.write('c.pem', server.certificatePem),
        '-key',
        folder.write('k.pem', server.privateKeyPem),
      ];
      const ca = folder.write('ca.pem', prod.bundlePem);
      for (const [caller, reason] of [
        [pemOf(stranger.issue({ id: web }), stranger), 'untrusted-issuer'],
        [undefined, 'no-certificate'],
      ] as const) {
        await using child = start('openssl', [
          's_server',
          '-accept',
          '127.0.0.1:0',
          ...args,
          '-CAfile',
          ca,
          '-Verify',
          '1',
          '-verify_return_error',
          '-tls1_3',
          '-www', // else it ends with its standard input
        ]);
        const [, port] = await child.output(/ACCEPT 127\.0\.0\.1:(\d+)/);
        const identity = caller && materialFrom(caller);
        const socket = connect({
          host: '127.0.0.1',
          port: Number(port),
          ca: prod.bundlePem,
          ...anyName,
          ...(identity && { cert: identity.certificateChain, key: identity.privateKey() }),
        });
        socket.resume();
        const [error] = await once(socket, 'error');
        assert.equal(handshakeRefusal(error, socket).reason, reason);
      }
    });
  });

  it('names other for what it does not know, without foreign text', () => {
    const strange = Object.assign(new Error('token=canary'), { code: 'ERR_STRANGE' });
    assert.deepEqual(handshakeRefusal(strange), { reason: 'other', detail: 'ERR_STRANGE' });
    assert.deepEqual(handshakeRefusal(new Error('token=canary')), { reason: 'other', detail: 'unknown error' });
    assert.deepEqual(handshakeRefusal(undefined), { reason: 'other', detail: 'unknown error' });
  });
});
