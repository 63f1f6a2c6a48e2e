import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { ConsulHealthCheck } from '@sallyport/registry-consul';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { requireServers } from '../../support/servers/programs.js';
import { ConsulWorld } from './world.js';

const probe = { intervalMs: 1000, timeoutMs: 500 };

describe('checks that Consul makes itself, with enable_agent_tls_for_checks', function () {
  this.timeout(30_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;
  let stops: (() => unknown)[] = [];

  before(async () => {
    world = await ConsulWorld.start({ tlsForChecks: true });
  });
  after(() => world?.[Symbol.asyncDispose]());
  afterEach(async () => {
    await world.closeSessions();
    for (const stop of stops) stop();
    stops = [];
  });

  /** Of a server that asks for certificates. Consul wants the certificate of what it checks to name its own node. */
  function credentials(dns: string) {
    const { certificatePem, privateKeyPem } = world.authority.issue({
      id: 'spiffe://test.example/svc/checked',
      dns: [dns],
      ip: ['127.0.0.1'],
    });
    return { ca: world.authority.bundlePem, cert: certificatePem, key: privateKeyPem };
  }

  async function healthPage(dns: string, answer: () => number): Promise<number> {
    const options = { ...credentials(dns), requestCert: true, rejectUnauthorized: true };
    const page = createServer(options, (_request, response) => response.writeHead(answer()).end());
    page.listen(0, '127.0.0.1');
    await once(page, 'listening');
    stops.push(() => {
      page.closeAllConnections();
      page.close();
    });
    return (page.address() as AddressInfo).port;
  }

  /** grpc.health.v1.Health; 1 is SERVING, 2 is NOT_SERVING. */
  async function healthService(dns: string, status: () => number): Promise<number> {
    const { ca, cert, key } = credentials(dns);
    const health = new Server();
    const path = '/grpc.health.v1.Health/Check';
    const bytes = (value: Buffer) => value;
    const types = {
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    };
    health.addService(
      { check: { path, requestStream: false, responseStream: false, ...types } },
      {
        check: (_call: unknown, done: (error: null, value: Buffer) => void) => done(null, Buffer.from([8, status()])),
      },
    );
    const pair = { cert_chain: Buffer.from(cert), private_key: Buffer.from(key) };
    const tls = ServerCredentials.createSsl(Buffer.from(ca), [pair], true);
    stops.push(() => health.forceShutdown());
    return await new Promise((resolve, reject) =>
      health.bindAsync('127.0.0.1:0', tls, (error, port) => (error ? reject(error) : resolve(port))),
    );
  }

  async function register(healthCheck: ConsulHealthCheck, port = 4433) {
    const { session } = await world.open('checked', { options: { healthCheck } });
    await session.register(instanceOf('checked', { endpoints: [{ host: '127.0.0.1', port }] }));
    return async (count: number) =>
      await eventually(async () => assert.equal((await session.list('checked')).length, count));
  }

  /** What the agent says of its own check; the catalogue hears of it only when the status changes. */
  async function output(): Promise<string> {
    const checks = (await world.server.api('GET', '/v1/agent/checks')) as Record<string, { Output: string }>;
    return Object.entries(checks).find(([id]) => id.endsWith(':http'))?.[1].Output ?? '';
  }

  it('lists an instance while its health page says that it is well, and not otherwise', async () => {
    let status = 200;
    const port = await healthPage('server-0', () => status);
    const listed = await register({ http: { ...probe, url: `https://127.0.0.1:${port}/health` } });

    await listed(1);
    status = 503;
    await listed(0);
  });

  it('lists an instance while its gRPC health service says that it serves, and not otherwise', async () => {
    let status = 1;
    const port = await healthService('server-0', () => status);
    const listed = await register({ grpc: probe }, port);

    await listed(1);
    status = 2;
    await listed(0);
  });

  it('does not list one whose certificate does not name the node of the agent, as those of services do not', async () => {
    const port = await healthPage('checked.internal', () => 200);
    const listed = await register({ http: { ...probe, url: `https://127.0.0.1:${port}/health` } });

    await eventually(async () =>
      assert.match(await output(), /certificate is valid for checked.internal, not server-0/),
    );
    await listed(0);
  });
});
