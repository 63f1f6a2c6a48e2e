import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Server } from 'node:tls';
import { secret } from '@sallyport/core';
import { systemClock } from '@sallyport/core/spi';
import { createAuthority, fetchBundle, fromAuthority, fromVault } from '@sallyport/pki';
import { RecordedEvents } from '../../../support/registry-context.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const UPGRADE = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n';

/** Node tells neither of an answer nor of an error then, and a deadline finds the request destroyed already. */
describe('a server that answers 101 to what was no upgrade', () => {
  const authority = createAuthority({ trustDomain: 'prod.acme' });
  const id = 'spiffe://prod.acme/svc/web';
  const context = { clock: systemClock, events: new RecordedEvents() };
  const credential = secret.from({ get: async () => 'hvs.of-a-test' }, 'credential');
  let server: Server;
  let address: string;

  before(async () => {
    const { certificatePem: cert, privateKeyPem: key } = authority.issue({
      id: 'spiffe://prod.acme/sallyport/authority',
      ip: ['127.0.0.1'],
    });
    server = createServer({ cert, key, ALPNProtocols: ['http/1.1', 'sallyport-pki/1'] }, (socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.write(UPGRADE));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    address = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(() => server.close());

  it('is no Vault: a start ends in its time', async () => {
    using folder = temporaryFolder();
    const ca = folder.write('ca.pem', authority.bundlePem);
    const auth = { method: 'token', token: credential } as const;
    const source = fromVault({ address, ca, auth, role: 'web', id, timeoutMs: 300, startTimeoutMs: 600 });

    await assert.rejects(source.open(context), /Vault answered with something else/);
  });

  it('is no authority: an enrolment ends in its time', async () => {
    const bundle = authority.bundlePem;
    const source = fromAuthority({ address, bundle, joinToken: credential, startTimeoutMs: 600 });

    await assert.rejects(source.open(context), /the answer of the authority is none to what was asked/);
  });

  it('is no bundle endpoint: the bundle of the other domain is asked for again', async () => {
    const endpoint = { profile: 'https_web', url: `${address}/`, ca: authority.bundlePem } as const;

    await assert.rejects(fetchBundle('other.test', endpoint), /its answer is none to what was asked/);
  });
});
