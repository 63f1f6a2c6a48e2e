import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type Agent, createServer, request, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { exactly } from '@sallyport/core';
import { httpsAgent, serverTlsOptions, systemClock, type TlsHandle } from '@sallyport/core/spi';
import { createAuthority, type IssueOptions } from '@sallyport/pki';
import { IssuedSource } from '@sallyport/testing';
import { RecordedEvents } from '../../../support/registry-context.js';

const authority = createAuthority({ trustDomain: 'test.example' });
const context = { events: new RecordedEvents(), clock: systemClock };

describe('httpsAgent', () => {
  let server: Server;
  let source: IssuedSource;
  let handle: TlsHandle;
  let held: (() => void)[];
  let serials: (string | undefined)[];

  beforeEach(async () => {
    held = [];
    serials = [];
    server = await listen('registry', { ip: ['127.0.0.1'] });
    source = new IssuedSource(issued('client'));
    handle = await source.open(context);
  });

  afterEach(() => {
    handle.close();
    server.closeAllConnections();
    server.close();
  });

  async function listen(name: string, names: Partial<IssueOptions>): Promise<Server> {
    const own = await new IssuedSource(issued(name, names)).open(context);
    const created = createServer(serverTlsOptions(own.current()), (req, response) => {
      serials.push((req.socket as TLSSocket).getPeerX509Certificate()?.serialNumber);
      if (req.url === '/held') held.push(() => response.end('late'));
      else response.end('ok');
    });
    created.listen(0, '127.0.0.1');
    await once(created, 'listening');
    own.close();
    return created;
  }

  it('reuses a connection while the certificate is the same', async () => {
    const agent = httpsAgent(handle);

    const [first, second] = [await get(server, agent, '/'), await get(server, agent, '/')];

    assert.equal(first.localPort, second.localPort);
    agent.destroy();
  });

  it('gives no request a connection that was busy while the certificate rotated', async () => {
    const agent = httpsAgent(handle, { maxSockets: 1 });
    const busy = get(server, agent, '/held');
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));

    source.rotate(issued('client'));
    const waiting = get(server, agent, '/');
    held[0]?.();
    const [before, during] = await Promise.all([busy, waiting]);
    const after = await get(server, agent, '/');

    assert.notEqual(before.localPort, during.localPort);
    assert.equal(during.localPort, after.localPort);
    assert.equal(new Set(serials).size, 2);
    assert.equal(serials.at(-1), handle.current().leaf.serialNumber);
    agent.destroy();
  });

  it('gives no request a connection whose certificate is about to end, and ends a request that outlasts it', async () => {
    server.close();
    server = await listen('registry', { ip: ['127.0.0.1'], notBefore: Date.now(), ttlMs: 3000 });
    const agent = httpsAgent(handle, { maxSockets: 2 });
    const held = get(server, agent, '/held').then(
      () => 'answered',
      (error: Error) => error.message,
    );
    const first = await get(server, agent, '/');

    await new Promise((resolve) => setTimeout(resolve, 1800));
    const second = await get(server, agent, '/');

    assert.notEqual(first.localPort, second.localPort);
    assert.equal(await held, 'socket hang up');
    agent.destroy();
  }).timeout(10_000);

  it('forgets every connection that has ended, of whatever generation', async () => {
    const agent = httpsAgent(handle);
    const busy = get(server, agent, '/held');
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    source.rotate(issued('client'));

    held[0]?.();
    await busy;
    await new Promise((resolve) => setTimeout(resolve, 50));

    assert.deepEqual(Object.keys(agent.sockets), []);
    agent.destroy();
  });

  it('accepts the expected identity and refuses another', async () => {
    const right = httpsAgent(handle, { expect: exactly('spiffe://test.example/svc/registry') });
    const wrong = httpsAgent(handle, { expect: exactly('spiffe://test.example/svc/other') });

    await get(server, right, '/');
    await assert.rejects(get(server, wrong, '/'), /expected spiffe:\/\/test.example\/svc\/other/);
    for (const agent of [right, wrong]) agent.destroy();
  });

  it('refuses the right identity under a name that the certificate does not hold, where both are asked for', async () => {
    const nameless = await listen('registry', {});
    const expect = exactly('spiffe://test.example/svc/registry');
    const [lenient, strict] = [httpsAgent(handle, { expect }), httpsAgent(handle, { expect, alsoHostName: true })];

    await get(nameless, lenient, '/');
    await assert.rejects(get(nameless, strict, '/'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    await get(server, strict, '/');
    for (const agent of [lenient, strict]) agent.destroy();
    nameless.closeAllConnections();
    nameless.close();
  });
});

function issued(name: string, names: Partial<IssueOptions> = {}) {
  return {
    identity: authority.issue({ id: `spiffe://test.example/svc/${name}`, ...names }),
    bundlePem: authority.bundlePem,
  };
}

/** Resolves with the connection that the answer came over. */
function get(server: Server, agent: Agent, path: string): Promise<{ readonly localPort: number | undefined }> {
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, agent }, (response) => {
      const { localPort } = response.socket as Socket;
      response.resume();
      response.once('end', () => setImmediate(resolve, { localPort }));
    });
    outgoing.once('error', reject);
    outgoing.end();
  });
}
