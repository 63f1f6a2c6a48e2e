import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createAuthority } from '@sallyport/pki';
import {
  allow,
  client,
  createService,
  defineContract,
  registry,
  type SallyportEvent,
  type Service,
  server,
  silentLogger,
  tls,
  unary,
} from 'sallyport';
import { z } from 'zod';
import { failureOf } from '../support/attacks/traveller.js';
import { eventually } from '../support/eventually.js';
import { root } from '../support/repository.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { type SvidMessage, svidOf, WorkloadApiServer } from '../support/workload-api-server.js';

const DOMAIN = 'spire.test';
const STOCK = `spiffe://${DOMAIN}/svc/stock`;
const WEB = `spiffe://${DOMAIN}/svc/web`;
const ROTATIONS = 20;

const Line = defineContract('test.line.v1.Line', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
});

describe('services with identities from the Workload API', () => {
  it('speak mutual TLS to each other through rotations and a restart of the agent, and no call fails', async () => {
    await using world = await twoServices();
    const say = async (text: string) => assert.deepEqual(await world.line.say({ text }), { text });
    await say('first');

    for (let turn = 0; turn < ROTATIONS; turn++) {
      if (turn === ROTATIONS / 2) {
        await world.agent.stop();
        await say('without an agent');
        await world.agent.start();
      }
      world.rotate();
      await Promise.all(Array.from({ length: 10 }, (_, call) => say(`${turn}/${call}`)));
    }

    await eventually(() => assert.ok(world.events.filter(({ type }) => type === 'rotated').length > ROTATIONS / 2));
    await say('last');
  });

  it('stop at once when the agent takes the identity away, and go on when it is back', async () => {
    await using world = await twoServices();
    await world.line.say({ text: 'before' });

    world.agent.say({ status: 'PERMISSION_DENIED' });

    await eventually(() => assert.equal(world.stock.readiness.ready, false), 1000);
    assert.match(world.stock.readiness.reasons.join(), /has no identity for this process/);
    assert.equal((await failureOf(world.line.say({ text: 'during' }, { deadlineMs: 500 }))).status, 'UNAVAILABLE');
    world.rotate();
    await eventually(() => assert.equal(world.stock.readiness.ready, true));
    await eventually(async () => assert.deepEqual(await world.line.say({ text: 'after' }), { text: 'after' }));
  });
});

describe('a process with an identity from the Workload API', () => {
  it('ends by itself when the source is closed', async () => {
    const { code, output } = await run('handle.close();');

    assert.deepEqual([output, code], ['spiffe://spire.test/svc/web\n', 0]);
  });

  it('is not kept alive by the source alone', async () => {
    const { code, output } = await run('');

    assert.deepEqual([output, code], ['spiffe://spire.test/svc/web\n', 0]);
  });
});

/** Runs a program that opens the source, against an agent that comes up later. */
async function run(then: string): Promise<{ code: number | null; output: string }> {
  using folder = temporaryFolder();
  const agent = new WorkloadApiServer(join(folder.path, 'agent.sock'), {
    svids: [svidOf(createAuthority({ trustDomain: DOMAIN }), WEB)],
  });
  const program = `
    import { EventBus, systemClock } from '@sallyport/core/spi';
    import { silentLogger, tls } from 'sallyport';
    const events = new EventBus('web', systemClock, silentLogger);
    const handle = await tls.fromWorkloadApi().open({ events, clock: systemClock });
    console.log(String(handle.current().identity));
    ${then}`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: root,
    env: { PATH: process.env.PATH, SPIFFE_ENDPOINT_SOCKET: agent.address },
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 20_000,
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const exited = once(child, 'close');
  await new Promise((resolve) => setTimeout(resolve, 300));
  await agent.start();
  const [code] = (await exited) as [number | null];
  await agent.stop();
  return { code, output };
}

async function twoServices() {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: DOMAIN });
  // One agent tells two workloads apart by their process; here the hint does.
  const svids = (): SvidMessage[] => [
    svidOf(authority, STOCK, { hint: 'stock' }),
    svidOf(authority, WEB, { hint: 'web' }),
  ];
  const agent = await new WorkloadApiServer(join(folder.path, 'agent.sock'), { svids: svids() }).start();
  const shared = registry.memory();
  const common = (hint: string) => ({
    version: '1.0.0',
    registry: shared,
    tls: tls.fromWorkloadApi({ socket: agent.address, hint }),
    drain: { spreadMs: 0, graceMs: 1000 },
    logger: silentLogger,
  });
  const stock: Service = createService({
    name: 'stock',
    ...common('stock'),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [allow({ from: WEB, to: 'test.line.v1.Line/*' })],
  });
  stock.handle(Line, { say: ({ text }) => ({ text }) });
  const web = createService({ name: 'web', ...common('web'), client: client({}) });
  const line = web.client(Line, { service: 'stock' });
  const events: SallyportEvent[] = [];
  stock.on('*', (event) => events.push(event));
  await stock.start();
  await web.start();
  return {
    agent,
    stock,
    line,
    events,
    rotate: () => agent.say({ svids: svids() }),
    async [Symbol.asyncDispose]() {
      await web.stop();
      await stock.stop();
      await agent.stop();
      folder[Symbol.dispose]();
    },
  };
}
