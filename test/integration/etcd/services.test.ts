import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { allow, createService, defineContract, type Service, server, silentLogger, unary } from 'sallyport';
import { z } from 'zod';
import { type Child, startNode } from '../../support/child.js';
import { eventually } from '../../support/eventually.js';
import { latencies, median } from '../../support/latencies.js';
import { root } from '../../support/repository.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { EtcdWorld, TRUST_DOMAIN } from './world.js';

/** The issue asks for 60 s; longer than the TTL shows the same in less time. */
const OUTAGE_MS = Number(process.env.SALLYPORT_OUTAGE_MS ?? 6000);

const Echo = defineContract('test.echo.v1.Echo', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
});

describe('services on etcd', function () {
  this.timeout(60_000 + 2 * OUTAGE_MS);
  requireServers('etcd-3.5', 'etcdctl-3.5');
  let world: EtcdWorld;
  let services: Service[] = [];

  before(async () => {
    world = await EtcdWorld.start({ version: '3.5' });
    await world.allow('echo');
    await world.allow('caller', ['echo']);
  });
  after(() => world?.[Symbol.asyncDispose]());

  afterEach(async () => {
    await Promise.all(services.map((service) => service.stop()));
    services = [];
  });

  function serving(): Service {
    const service: Service = createService({
      name: 'echo',
      version: '1.0.0',
      tls: world.sourceOf('echo'),
      registry: world.registryOf('echo'),
      server: server({ address: '127.0.0.1:0' }),
      authorize: [allow({ from: `spiffe://${TRUST_DOMAIN}/svc/caller`, to: 'test.echo.v1.Echo/*' })],
      drain: { spreadMs: 0, graceMs: 1000 },
      logger: silentLogger,
    }).handle(Echo, { say: ({ text }) => ({ text: text === 'who' ? service.instanceId : text }) });
    services.push(service);
    return service;
  }

  function calling(): Service {
    const service = createService({
      name: 'caller',
      version: '1.0.0',
      tls: world.sourceOf('caller'),
      registry: world.registryOf('caller'),
      server: server({ address: '127.0.0.1:0' }), // it is on loopback itself, so loopback endpoints are believed
      authorize: [],
      drain: { spreadMs: 0, graceMs: 1000 },
      logger: silentLogger,
    });
    services.push(service);
    return service;
  }

  it(`T37 go on calling while etcd is away for ${OUTAGE_MS / 1000} s, and find a new instance within 1 s of its return`, async () => {
    const [echo, caller] = [serving(), calling()];
    await Promise.all([echo.start(), caller.start()]);
    const client = caller.client(Echo, { service: 'echo' });
    const before = await latencies(() => client.say({ text: 'a' }), 500);

    await world.server.kill();
    const during = await latencies(() => client.say({ text: 'b' }), OUTAGE_MS);
    const second = serving();
    await second.start();
    assert.equal(second.readiness.ready, false);
    await world.server.restart();
    const returnedAt = performance.now();
    await eventually(
      async () => assert.deepEqual(await client.say({ text: 'who' }), { text: second.instanceId }),
      10_000,
    );
    const foundMs = performance.now() - returnedAt;

    console.log(
      `      ${during.length} calls without etcd, median ${median(during).toFixed(2)} ms (with it ${median(before).toFixed(2)} ms);`,
      `a new instance is found ${foundMs.toFixed(0)} ms after its return`,
    );
    assert.ok(median(during) < 3 * median(before) + 2);
    assert.ok(foundMs < 1000);
  });

  it('T37 start without etcd: not ready, saying so, and ready as soon as it is there', async () => {
    await world.server.kill();
    const [echo, caller] = [serving(), calling()];

    await Promise.all([echo.start(), caller.start()]);

    assert.equal(echo.readiness.ready, false);
    assert.ok(echo.readiness.reasons.includes('the registry is down'));
    await world.server.restart();
    await eventually(() => assert.equal(echo.readiness.ready && caller.readiness.ready, true), 10_000);
    const client = caller.client(Echo, { service: 'echo' });
    await eventually(async () => assert.deepEqual(await client.say({ text: 'late' }), { text: 'late' }));
  });

  const states: readonly (readonly [
    state: string,
    prepare: (proxy: FaultProxy) => void,
    meanwhile: (proxy: FaultProxy) => void,
  ])[] = [
    ['while etcd answers', () => undefined, () => undefined],
    ['while etcd hangs', () => undefined, (proxy) => proxy.stall()],
    ['when etcd has hung from the beginning', (proxy) => proxy.stall(), () => undefined],
  ];

  for (const [state, prepare, meanwhile] of states) {
    it(`end with their process ${state}`, async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      using folder = temporaryFolder();
      await world.identityOf('echo').write(folder.path, { name: 'echo' });
      prepare(proxy);
      await using child = startService(proxy.address, folder.path);
      await child.output(/listening/);
      await sleep(1000);

      meanwhile(proxy);
      const from = performance.now();
      const { code, signal, stderr } = await child.stop('SIGTERM');

      const tookMs = performance.now() - from;
      console.log(`      ended ${Math.round(tookMs)} ms after SIGTERM`);
      assert.ok(tookMs < 10_000);
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, stderr);
    });
  }
});

function startService(endpoint: string, folder: string): Child {
  const program = `${root}test/dist/integration/etcd/echo-process.js`;
  return startNode([program, endpoint, folder], { timeoutMs: 40_000 });
}
