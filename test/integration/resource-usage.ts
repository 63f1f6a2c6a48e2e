/*
 * A program of its own, run with --expose-gc: makes calls and connections in rounds and writes, as one line of JSON, what it
 * held after each. It says when it has stopped its services and must then end by itself.
 */
import { readdirSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { mesh } from '@sallyport/testing';
import { allow, type Client, createService, defineContract, type Service, silentLogger, unary } from 'sallyport';
import { IssuedSource } from 'sallyport/testing';
import { z } from 'zod';

export interface Usage {
  readonly heapBytes: number;
  /** Kinds of active handles and requests, sorted. */
  readonly handles: readonly string[];
  /** Undefined where the system does not list them. */
  readonly descriptors: number | undefined;
}

export interface Report {
  readonly calls: number;
  readonly connections: number;
  readonly refusedConnections: number;
  readonly before: Usage;
  readonly afterCalls: Usage;
  readonly afterConnections: Usage;
  readonly afterStop: Usage;
}

/** Standard output is a pipe or a terminal. */
const ownOutput = new Set(['PipeWrap', 'TTYWrap']);

const CALLS = 10_000;
const CONNECTIONS = 1_000;
const REFUSED_CONNECTIONS = 100;
const CONCURRENCY = 16;

const Echo = defineContract('test.echo.v1.Echo', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
});

const world = mesh();
const stock = world.service('stock', { authorize: [allow({ from: world.id('web'), to: 'test.echo.v1.Echo/*' })] });
stock.handle(Echo, { say: ({ text }) => ({ text }) });
await world.start();
const web = clientOf(await world.callerAs('web'));
const trusted = new IssuedSource({
  identity: world.authority.issue({ id: world.id('web') }),
  bundlePem: world.authority.bundlePem,
});
const stranger = mesh().authority;
const foreign = new IssuedSource({
  identity: stranger.issue({ id: world.id('web') }),
  bundlePem: world.authority.bundlePem + stranger.bundlePem,
});

// Code is compiled, caches are filled and pools have their size before anything is measured.
await call(1_000);
await connect(100, trusted);
await connect(20, foreign);
const before = await usage();
await call(CALLS);
const afterCalls = await usage();
await connect(CONNECTIONS, trusted);
const refusedConnections = await connect(REFUSED_CONNECTIONS, foreign);
const afterConnections = await usage();
await world.stop();
const report: Report = {
  calls: CALLS,
  connections: CONNECTIONS,
  refusedConnections,
  before,
  afterCalls,
  afterConnections,
  afterStop: await usage(),
};
console.log(JSON.stringify(report));

async function call(times: number): Promise<void> {
  await inParallel(times, () => say(web));
}

/** Connects, calls once and disconnects. Resolves with the number of those that were refused. */
async function connect(times: number, source: IssuedSource): Promise<number> {
  let refused = 0;
  await inParallel(times, async () => {
    const caller = createService({
      name: 'caller',
      version: '1.0.0',
      tls: source,
      registry: world.registry,
      logger: silentLogger,
    });
    await caller.start();
    await say(clientOf(caller)).catch(() => refused++);
    await caller.stop();
  });
  return refused;
}

function clientOf(caller: Service): Client<typeof Echo> {
  return caller.client(Echo, { service: 'stock' });
}

async function say(client: Client<typeof Echo>): Promise<void> {
  await client.say({ text: 'hello' });
}

async function inParallel(times: number, work: () => Promise<unknown>): Promise<void> {
  let left = times;
  await Promise.all(
    Array.from({ length: CONCURRENCY }, async () => {
      while (left-- > 0) await work();
    }),
  );
}

async function usage(): Promise<Usage> {
  // The last sockets close, and what the event loop held for them is released, in later turns.
  await pause(200);
  for (let i = 0; i < 5; i++) {
    globalThis.gc?.();
    await pause(10);
  }
  return {
    heapBytes: process.memoryUsage().heapUsed,
    handles: process
      .getActiveResourcesInfo()
      .filter((kind) => !ownOutput.has(kind))
      .sort(),
    descriptors: descriptors(),
  };
}

function descriptors(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return undefined;
  }
}
