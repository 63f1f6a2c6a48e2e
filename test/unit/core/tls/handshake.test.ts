import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { createServer, type TlsOptions } from 'node:tls';
import { exactly } from '@sallyport/core';
import {
  clientHandshake,
  type ExpectedServer,
  ServerRefusedError,
  systemClock,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { createAuthority, type IssuedIdentity } from '@sallyport/pki';
import { IssuedSource } from '@sallyport/testing';

const authority = createAuthority({ trustDomain: 'handshake.test' });
const idOf = (service: string) => `spiffe://handshake.test/svc/${service}`;
const server = authority.issue({ id: idOf('store'), dns: ['store.test'] });

async function material(): Promise<TlsMaterial> {
  const source = new IssuedSource({
    identity: authority.issue({ id: idOf('web') }),
    bundlePem: authority.bundlePem,
  });
  const handle = await source.open({ clock: systemClock, events: { emit() {} } });
  const current = handle.current();
  handle.close();
  return current;
}

interface Shown {
  readonly identity?: IssuedIdentity;
  readonly tls?: TlsOptions;
  readonly timeoutMs?: number;
}

/** What comes of a handshake with a server that shows itself like this. */
async function outcome(expect: ExpectedServer, { identity = server, tls = {}, timeoutMs = 2000 }: Shown = {}) {
  const listening = createServer({
    cert: identity.certificatePem,
    key: identity.privateKeyPem,
    ALPNProtocols: ['one', 'two'],
    ...tls,
  });
  listening.on('tlsClientError', () => {});
  const sockets = new Set<Socket>();
  listening.on('connection', (socket: Socket) => sockets.add(socket));
  listening.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  const tcp = connect((listening.address() as AddressInfo).port, '127.0.0.1');
  tcp.on('error', () => {});
  await once(tcp, 'connect');
  try {
    const options = { expect, material: await material(), protocols: ['two'], timeoutMs };
    const { socket, peer } = await clientHandshake(tcp, options);
    return { protocol: socket.alpnProtocol, peer: peer?.id };
  } catch (error) {
    assert.ok(error instanceof ServerRefusedError, String(error));
    return { refused: error.reason, presented: error.presented };
  } finally {
    tcp.destroy();
    for (const socket of sockets) socket.destroy();
    listening.close();
  }
}

const store = exactly(idOf('store'));

describe('the handshake with a server', () => {
  it('takes one that has the identity, whatever its name', async () => {
    assert.deepEqual(await outcome({ identity: store }), { protocol: 'two', peer: idOf('store') });
  });

  it('takes one that has the name, where no identity is expected', async () => {
    assert.deepEqual(await outcome({ host: 'store.test' }), { protocol: 'two', peer: undefined });
  });

  it('takes one that has both', async () => {
    const found = await outcome({ host: 'store.test', identity: store });

    assert.deepEqual(found, { protocol: 'two', peer: idOf('store') });
  });

  it('refuses the identity of another service, and says who it was', async () => {
    const found = await outcome({ identity: exactly(idOf('billing')) });

    assert.deepEqual(found, { refused: 'wrong-identity', presented: idOf('store') });
  });

  it('refuses the right identity under another name', async () => {
    const found = await outcome({ host: 'other.test', identity: store });

    assert.deepEqual(found, { refused: 'wrong-identity', presented: undefined });
  });

  it('refuses the right name with the identity of another service', async () => {
    const found = await outcome({ host: 'store.test', identity: exactly(idOf('billing')) });

    assert.deepEqual(found, { refused: 'wrong-identity', presented: idOf('store') });
  });

  it('refuses right name and identity from another CA', async () => {
    const stranger = createAuthority({ trustDomain: 'handshake.test' });
    const identity = stranger.issue({ id: idOf('store'), dns: ['store.test'] });

    assert.equal((await outcome({ host: 'store.test' }, { identity })).refused, 'untrusted-issuer');
    assert.equal((await outcome({ identity: store }, { identity })).refused, 'untrusted-issuer');
  });

  it('refuses an identity of a trust domain without a bundle', async () => {
    const found = await outcome({ identity: exactly('spiffe://elsewhere.test/svc/store') });

    assert.equal(found.refused, 'wrong-trust-domain');
  });

  it('refuses a server that speaks no protocol, or an older TLS', async () => {
    assert.equal((await outcome({ identity: store }, { tls: { ALPNProtocols: [] } })).refused, 'alpn');
    assert.equal((await outcome({ identity: store }, { tls: { maxVersion: 'TLSv1.2' } })).refused, 'tls-version');
  });

  it('gives up on a server that does not go on, and closes the connection', async () => {
    const neverDone: TlsOptions = { SNICallback: () => {} };

    assert.equal((await outcome({ identity: store }, { tls: neverDone, timeoutMs: 50 })).refused, 'timeout');
  });

  it('expects somebody: a caller from JavaScript that names nobody gets no connection', async () => {
    const nobody = {} as ExpectedServer;

    await assert.rejects(outcome(nobody), /know whom to expect/);
  });
});
