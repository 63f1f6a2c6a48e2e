import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { InstanceRecord } from 'sallyport';
import { type RegistryPlace, registryPlaces } from './registries.js';
import { describe, environment, table, writeReport } from './report.js';
import { quantile } from './statistics.js';

/** Between two changes that have nothing to do with each other. */
const PAUSE_MS = 60;
/** How soon a watcher should see a change on loopback, p95. */
const TARGET_MS = 20;

export interface RegistryBenchOptions {
  /** Fewer changes and registrations; less exact. */
  readonly quick: boolean;
  /** Folder for the report. */
  readonly out: string;
}

/** One registry. Times in ms, as the program that asks sees them; CPU is that of this process, not of the server. */
interface Figures {
  readonly registry: string;
  readonly changes: number;
  /** From the call of `update` until a watcher of another participant has the change. */
  readonly seen: Quantiles;
  /** The same for changes without a pause: each is made when the one before was seen. */
  readonly seenInBurst: Quantiles;
  readonly cpuPerChangeMs: number;
  readonly registrations: number;
  readonly register: Quantiles;
  /** With that many instances. */
  readonly instances: number;
  readonly list: Quantiles;
  /** From the start of a watch until its snapshot is there. */
  readonly snapshot: Quantiles;
  /** As `seen`, with all instances there. */
  readonly seenAmongAll: Quantiles;
  /** What a watch of all instances and its view take, MB. */
  readonly watchHeapMb: number;
}

interface Quantiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** Each registry in turn, on the real servers, with one participant that changes and another that watches. */
export async function benchRegistry({ quick, out }: RegistryBenchOptions): Promise<void> {
  const settings = { changes: quick ? 200 : 500, instances: 1000, lists: quick ? 5 : 20 };
  const where = await environment(['sallyport', '@grpc/grpc-js', 'consul'], []);
  console.log(`${describe(where)}\n`);
  const figures: Figures[] = [];
  // No registry keeps a process alive by its waiting, and here nothing else does.
  const alive = setInterval(() => undefined, 60_000);
  try {
    for (const open of registryPlaces) {
      await using place = await open();
      console.error(place.name);
      figures.push(await measure(place, settings));
    }
  } finally {
    clearInterval(alive);
  }
  const markdown = `${tableOf(figures)}\n\n${verdictOf(figures)}`;
  console.log(markdown);
  await writeReport(out, 'registry', [describe(where)], [{ name: 'summary', markdown, json: figures }], {
    environment: where,
    settings,
  });
}

interface Settings {
  readonly changes: number;
  readonly instances: number;
  readonly lists: number;
}

async function measure(place: RegistryPlace, { changes, instances, lists }: Settings): Promise<Figures> {
  const { owner, watcher, service } = place;
  await owner.register(instanceOf(service, 0));
  const seen = await changesSeen(place, changes, { pauseMs: PAUSE_MS });
  const cpuBefore = process.cpuUsage();
  const seenInBurst = await changesSeen(place, changes);
  const cpu = process.cpuUsage(cpuBefore);
  const register: number[] = [];
  for (let index = 1; index < instances; index++) {
    register.push(await timed(() => owner.register(instanceOf(service, index))));
  }
  const list: number[] = [];
  for (let round = 0; round < lists; round++) {
    list.push(await timed(async () => requireAll(instances, (await watcher.list(service)).length)));
  }
  const snapshot: number[] = [];
  for (let round = 0; round < lists; round++) {
    snapshot.push(await timed(async () => requireAll(instances, await snapshotSize(place))));
  }
  const { seen: seenAmongAll, heapMb } = await watchedAmongAll(place, changes);
  return {
    registry: place.name,
    changes,
    seen: quantiles(seen),
    seenInBurst: quantiles(seenInBurst),
    cpuPerChangeMs: (cpu.user + cpu.system) / 1000 / changes,
    registrations: register.length,
    register: quantiles(register),
    instances,
    list: quantiles(list),
    snapshot: quantiles(snapshot),
    seenAmongAll: quantiles(seenAmongAll),
    watchHeapMb: heapMb,
  };
}

async function watchedAmongAll(place: RegistryPlace, changes: number): Promise<{ seen: number[]; heapMb: number }> {
  const before = heapBytes();
  let heapMb = 0;
  const onEnd = () => {
    heapMb = (heapBytes() - before) / 2 ** 20;
  };
  const seen = await changesSeen(place, changes, { pauseMs: PAUSE_MS, onEnd });
  return { seen, heapMb };
}

interface Course {
  /** Left out: none. */
  readonly pauseMs?: number;
  /** Called while the watch still holds what it knows. */
  readonly onEnd?: () => void;
}

/** One change after the other: each is made when the one before was seen. Resolves with the times. */
async function changesSeen(
  { owner, watcher, service }: RegistryPlace,
  count: number,
  { pauseMs = 0, onEnd }: Course = {},
): Promise<number[]> {
  const known = new Map<string, InstanceRecord>();
  const watch = watcher.watch(service)[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await watch.next();
    if (done) throw new Error('the watch has ended');
    if (value.type === 'snapshot') for (const one of value.instances) known.set(one.id, one);
    else if (value.type === 'added' || value.type === 'changed') known.set(value.instance.id, value.instance);
  };
  try {
    await next();
    const seen: number[] = [];
    for (let index = 0; index < count; index++) {
      const record = instanceOf(service, 0, { change: randomUUID() });
      if (pauseMs > 0) await sleep(pauseMs);
      const from = performance.now();
      const updated = owner.update(record);
      while (known.get(record.id)?.metadata.change !== record.metadata.change) await next();
      seen.push(performance.now() - from);
      await updated;
    }
    onEnd?.();
    return seen;
  } finally {
    await watch.return?.();
  }
}

async function snapshotSize({ watcher, service }: RegistryPlace): Promise<number> {
  for await (const event of watcher.watch(service)) {
    if (event.type === 'snapshot') return event.instances.length;
  }
  throw new Error('the watch began without a snapshot');
}

function requireAll(expected: number, found: number): void {
  if (found !== expected) throw new Error(`${found} of ${expected} instances were found`);
}

function instanceOf(service: string, index: number, metadata: Readonly<Record<string, string>> = {}): InstanceRecord {
  return {
    id: `${service}-${String(index).padStart(4, '0')}`,
    service,
    version: '1.0.0',
    endpoints: [{ host: '127.0.0.1', port: 4433 }],
    identity: `spiffe://test.example/svc/${service}`,
    metadata,
    weight: 100,
    zone: '',
    state: 'ready',
    contracts: ['bench.orders.v1.Orders'],
  };
}

async function timed(task: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await task();
  return performance.now() - from;
}

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

function heapBytes(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

function quantiles(values: readonly number[]): Quantiles {
  const sorted = [...values].sort((a, b) => a - b);
  return { p50: quantile(sorted, 0.5), p95: quantile(sorted, 0.95), p99: quantile(sorted, 0.99) };
}

function tableOf(figures: readonly Figures[]): string {
  const head = [
    'registry',
    'change seen p50 / p95 / p99 ms',
    'in a burst p50 / p95 ms',
    'CPU ms',
    'register p50 / p95 ms',
    'list 1,000 p50 ms',
    'watch 1,000 p50 ms',
    'seen among 1,000 p50 / p95 ms',
    'heap MB',
  ];
  const three = ({ p50, p95, p99 }: Quantiles) => [p50, p95, p99].map((ms) => ms.toFixed(1)).join(' / ');
  const two = ({ p50, p95 }: Quantiles) => [p50, p95].map((ms) => ms.toFixed(1)).join(' / ');
  return table(
    head,
    figures.map((one) => [
      one.registry,
      three(one.seen),
      two(one.seenInBurst),
      one.cpuPerChangeMs.toFixed(2),
      two(one.register),
      one.list.p50.toFixed(1),
      one.snapshot.p50.toFixed(1),
      two(one.seenAmongAll),
      one.watchHeapMb.toFixed(1),
    ]),
  );
}

function verdictOf(figures: readonly Figures[]): string {
  const among = `a change among ${figures[0]?.instances} instances`;
  return [verdict('a change', figures, ({ seen }) => seen), verdict(among, figures, (one) => one.seenAmongAll)].join(
    '\n\n',
  );
}

function verdict(what: string, figures: readonly Figures[], of: (figures: Figures) => Quantiles): string {
  const slow = figures.filter((one) => of(one).p95 > TARGET_MS).map(({ registry }) => registry);
  const target = `${what} is seen within ${TARGET_MS} ms, p95`;
  return slow.length === 0 ? `Reached: ${target}.` : `Not reached by ${slow.join(', ')}: ${target}.`;
}
