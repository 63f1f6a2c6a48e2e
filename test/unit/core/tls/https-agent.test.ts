import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type Agent, createServer, type RequestOptions, request, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { exactly, tls } from '@sallyport/core';
import { type HttpsAgentOptions, httpsAgent, serverTlsOptions, type TlsHandle } from '@sallyport/core/spi';
import { createAuthority, type IdentityFiles } from '@sallyport/pki';
import { runNode } from '../../../support/child.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';
import { materialFrom, pemOf, prod, recorder, web } from './support.js';

const registry = 'spiffe://prod.acme/svc/registry';

describe('https agent', () => {
  let folder: TemporaryFolder;
  let files: IdentityFiles;
  let handle: TlsHandle;
  let agent: Agent | undefined;
  let server: Server;
  let callers: string[];

  beforeEach(async () => {
    folder = temporaryFolder();
    files = await prod.issue({ id: web }).write(folder.path);
    handle = await tls.fromFiles(files).open(recorder());
    callers = [];
    await serve(materialFrom(pemOf(prod.issue({ id: registry, ip: ['127.0.0.1'] }), prod)));
  });
  afterEach(async () => {
    agent?.destroy();
    agent = undefined;
    handle.close();
    await stop();
    folder[Symbol.dispose]();
  });

  /** A server that answers with the serial of its caller's certificate. */
  async function serve(material: Parameters<typeof serverTlsOptions>[0]): Promise<void> {
    server = createServer(serverTlsOptions(material), ({ socket }, response) => {
      const serial = (socket as TLSSocket).getPeerX509Certificate()?.serialNumber ?? 'nobody';
      callers.push(serial);
      response.end(serial);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }

  async function stop(): Promise<void> {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  function port(): number {
    return (server.address() as AddressInfo).port;
  }

  function makeAgent(options?: HttpsAgentOptions): void {
    agent = httpsAgent(handle, options);
  }

  /** Gives the workload a new certificate and returns its serial. */
  async function rotate(): Promise<string> {
    const changed = new Promise((resolve) => handle.onChange(resolve));
    const next = prod.issue({ id: web });
    writeFileSync(files.key, next.privateKeyPem);
    writeFileSync(files.cert, next.certificatePem);
    await changed;
    return next.serial;
  }

  /** The body of the answer. Rejects as the request does. */
  function get(options: RequestOptions = {}): Promise<string> {
    const target = { host: '127.0.0.1', port: port(), agent, ...options };
    return new Promise((resolve, reject) => {
      request(target, (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => {
          body += chunk.toString();
        });
        response.on('end', () => resolve(body));
      })
        .on('error', reject)
        .end();
    });
  }

  it("authenticates with the workload's certificate, and keeps the connection", async () => {
    makeAgent();
    const serial = handle.current().leaf.serialNumber;
    let connections = 0;
    server.on('secureConnection', () => connections++);

    assert.deepEqual([await get(), await get()], [serial, serial]);
    assert.equal(connections, 1);
  });

  it('follows the rotation of the certificate', async () => {
    makeAgent();
    await get();
    const next = await rotate();

    assert.equal(await get(), next);
  });

  it('gives no request a connection of the old certificate, also one that was busy during the rotation', async () => {
    makeAgent();
    let answer = () => {};
    const asked = new Promise<void>((resolve) => {
      server.prependOnceListener('request', (_request, response) => {
        const end = response.end.bind(response);
        response.end = ((body: string) => {
          answer = () => end(body);
          resolve();
          return response;
        }) as typeof response.end;
      });
    });
    const busy = get();
    await asked;
    const next = await rotate();
    answer();

    assert.notEqual(await busy, next);
    assert.equal(await get(), next);
  });

  it('T09 resumes no session, also where the server would', async () => {
    await stop();
    const { certificatePem: cert, privateKeyPem: key } = prod.issue({ id: registry, ip: ['127.0.0.1'] });
    const reused: boolean[] = [];
    server = createServer({ cert, key }, (_request, response) => response.end('x'));
    server.on('secureConnection', (socket: TLSSocket) => reused.push(socket.isSessionReused()));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    makeAgent();

    for (let round = 0; round < 3; round++) await get({ headers: { connection: 'close' } });

    assert.deepEqual(reused, [false, false, false]);
  });

  it('T36 refuses a server of another authority', async () => {
    await stop();
    const foreign = createAuthority({ trustDomain: 'prod.acme' });
    await serve(materialFrom(pemOf(foreign.issue({ id: registry, ip: ['127.0.0.1'] }), foreign)));
    makeAgent();

    await assert.rejects(get(), { code: /SELF_SIGNED|UNABLE_TO/ });
  });

  it('refuses a server whose certificate names another host', async () => {
    await stop();
    await serve(materialFrom(pemOf(prod.issue({ id: registry, dns: ['other.internal'] }), prod)));
    makeAgent();

    await assert.rejects(get(), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  it('accepts the expected identity, whatever its host name', async () => {
    await stop();
    await serve(materialFrom(pemOf(prod.issue({ id: registry }), prod)));
    makeAgent({ expect: exactly(registry) });

    assert.equal(await get(), handle.current().leaf.serialNumber);
  });

  it('T20 refuses another identity than the expected, before anything is sent', async () => {
    makeAgent({ expect: exactly('spiffe://prod.acme/svc/vault') });

    await assert.rejects(
      get(),
      /the server is spiffe:\/\/prod\.acme\/svc\/registry, expected spiffe:\/\/prod\.acme\/svc\/vault/,
    );
    assert.deepEqual(callers, []);
  });

  it('refuses a server that is no workload where an identity is expected', async () => {
    await stop();
    const { certificatePem: cert, privateKeyPem: key } = prod.issueRaw({ id: registry, keyUsage: null });
    server = createServer({ cert, key });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    makeAgent({ expect: exactly(registry) });

    await assert.rejects(get(), /the server was refused: key usage is missing/);
  });

  it('T69 cannot be talked out of verification by request options', async () => {
    await stop();
    const foreign = createAuthority({ trustDomain: 'prod.acme' });
    await serve(materialFrom(pemOf(foreign.issue({ id: registry, ip: ['127.0.0.1'] }), foreign)));
    makeAgent();
    const lax = { rejectUnauthorized: false, ca: foreign.bundlePem, checkServerIdentity: () => undefined };

    await assert.rejects(get(lax), { code: /SELF_SIGNED|UNABLE_TO/ });
  });

  it('T68 verifies even under NODE_TLS_REJECT_UNAUTHORIZED=0', async () => {
    await stop();
    const foreign = createAuthority({ trustDomain: 'prod.acme' });
    await serve(materialFrom(pemOf(foreign.issue({ id: registry, ip: ['127.0.0.1'] }), foreign)));
    const script = `
      import { request } from 'node:https';
      import { tls } from '@sallyport/core';
      import { httpsAgent, systemClock } from '@sallyport/core/spi';
      const handle = await tls.fromFiles(${JSON.stringify(files)}).open({ clock: systemClock, events: { emit() {} } });
      const outcome = (agent) => new Promise((resolve) => {
        request({ host: '127.0.0.1', port: ${port()}, agent, cert: handle.current().certificateChain, key: handle.current().privateKey() }, (response) => resolve(response.resume().statusCode))
          .on('error', (error) => resolve(error.code)).end();
      });
      console.log(JSON.stringify([await outcome(httpsAgent(handle)), await outcome(undefined)]));
      process.exit();`;

    const { stdout, stderr } = await runNode(['--input-type=module', '--eval', script], {
      env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      cwd: import.meta.dirname,
    });

    const [ours, stock] = JSON.parse(stdout || '[]');
    assert.match(String(ours), /SELF_SIGNED|UNABLE_TO/, stderr);
    // The foreign server refuses our certificate in its turn; what matters is that Node itself had nothing to object.
    assert.doesNotMatch(String(stock), /SELF_SIGNED|UNABLE_TO/);
  });

  it('listens to the handle no more once it was destroyed', () => {
    const listeners = new Set<unknown>();
    const spied: TlsHandle = {
      current: () => handle.current(),
      suspended: undefined,
      onChange(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
      close() {},
    };
    const destroyed = httpsAgent(spied);
    assert.equal(listeners.size, 1);

    destroyed.destroy();
    destroyed.destroy();

    assert.equal(listeners.size, 0);
  });
});
