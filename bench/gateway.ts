import type { GatewayLoad } from './gateway-load.js';
import { BASELINE, DIRECT, type GatewayEntry, gatewayPeers } from './gateway-peers.js';
import { type Measurement, measure } from './harness.js';
import type { Subject } from './line.js';
import type { LoadResult } from './load.js';
import { provide } from './provide.js';
import { describe, environment, type Section, shown, table, writeReport } from './report.js';
import { choose, packagesOf, type RpcBenchOptions } from './rpc.js';
import { type Spread, spread } from './statistics.js';

export type GatewayBenchOptions = Pick<
  RpcBenchOptions,
  'quick' | 'peers' | 'node' | 'rounds' | 'durationMs' | 'out' | 'nodeFlags' | 'onProgress'
>;

/** Requests a second at which the latency is measured that a gateway adds. */
const PACE = 2000;
/**
 * Of each round at that pace: many short ones. A shared machine stands still for some 10 ms every now and then, and whatever is under
 * way waits; that spoils the p99 of the round it happens in, and must not decide about all of them.
 */
const PACED_MS = 300;
const OURS = 'sallyport';
const AIMS = { cpuUs: 40, ratio: 3, addedP99Ms: 2 } as const;

type GatewayMeasurement = Measurement<GatewayLoad, LoadResult>;
type Settings = Pick<Parameters<typeof measure>[0], 'rounds' | 'durationMs' | 'nodeFlags' | 'onProgress'>;

/** One gateway under full load, over all rounds. */
interface Throughput {
  readonly gateway: string;
  readonly asks: GatewayEntry['asks'];
  readonly behind: GatewayEntry['behind'];
  readonly node: string;
  readonly requestsPerSecond: Spread;
  /** Throughput relative to the baseline in the same round. */
  readonly ratio: Spread;
  readonly p50Ms: Spread;
  readonly p99Ms: Spread;
  /** A request, of the process of the gateway and of the one of the service. */
  readonly gatewayCpuUs: Spread;
  readonly serviceCpuUs: Spread;
  readonly gatewayRssMb: Spread;
}

/** What our gateway adds to a call at a fixed pace: its rounds beside those without a gateway. */
interface Latency {
  readonly perSecond: number;
  readonly direct: { readonly p50Ms: Spread; readonly p99Ms: Spread };
  readonly through: { readonly p50Ms: Spread; readonly p99Ms: Spread };
  /** Of the same round. */
  readonly addedP50Ms: Spread;
  readonly addedP99Ms: Spread;
  readonly gatewayCpuUs: Spread;
}

/** JSON over TLS 1.3 to a service behind a gateway, gateways in alternation; then the latency that ours adds. */
export async function benchGateway(options: GatewayBenchOptions): Promise<void> {
  const { quick, nodeFlags, onProgress } = options;
  const rounds = options.rounds ?? (quick ? 3 : 9);
  const durationMs = options.durationMs ?? (quick ? 1000 : 3000);
  const settings: Settings = { rounds, durationMs, nodeFlags, onProgress };
  const chosen = choose('peer', gatewayPeers, options.peers, ({ name }) => name);
  const { subjects, absent } = await provide(chosen, options.node, {
    program: new URL('gateway-process.js', import.meta.url),
    roles: ['orders', 'gateway', 'web'],
  });
  for (const { peer, reason, output } of absent) onProgress(`left out: ${peer}: ${reason}\n${output}`);
  if (subjects.length === 0) throw new Error('There is no gateway left to measure.');
  const present = chosen.filter(({ name }) => subjects.some((subject) => subject.name === name));
  const where = await environment(packagesOf(present, false), packagesOf(present, true));

  const throughput = await benchThroughput(present, subjects, settings);
  const latency = await benchLatency(subjects, settings);
  const sections = [
    throughput.section,
    ...(latency ? [latency.section] : []),
    verdict(throughput.rows, latency?.found),
  ];
  const head = [
    `${describe(where)}; ${rounds} rounds of ${durationMs} ms.`,
    ...absent.map(({ peer, reason }) => `Left out: ${peer}, ${reason}.`),
  ];
  console.log(`\n${[...head, ...sections.map(({ markdown }) => markdown)].join('\n\n')}`);
  await writeReport(options.out, 'gateway', head, sections, {
    environment: where,
    settings: { rounds, durationMs },
    absent: absent.map(({ peer, reason }) => ({ peer, reason })),
  });
}

async function benchThroughput(entries: readonly GatewayEntry[], subjects: readonly Subject[], settings: Settings) {
  const { durationMs } = settings;
  const jobs: GatewayLoad[] = [{ kind: 'busy', durationMs }];
  const measurements: GatewayMeasurement[] = await measure({ ...settings, subjects, jobs });
  const rows = entries.map((entry) => summarize(measurements, entry));
  const section: Section = {
    name: 'throughput',
    markdown: `## As fast as the answers come\n\n${throughputTable(rows)}`,
    json: { summary: rows, measurements },
  };
  return { rows, section };
}

function summarize(all: readonly GatewayMeasurement[], { name, asks, behind, command }: GatewayEntry): Throughput {
  const of = (gateway: string) => all.filter(({ subject }) => subject === gateway);
  const rate = ({ result }: GatewayMeasurement) => result.count / result.seconds;
  const own = of(name);
  const baseline = new Map(of(BASELINE).map((one) => [one.round, rate(one)]));
  const over = overAll(own);
  return {
    gateway: name,
    asks,
    behind,
    node: command === undefined ? (own[0]?.node ?? '') : '',
    requestsPerSecond: over(rate),
    ratio: over((one) => rate(one) / (baseline.get(one.round) ?? Number.NaN)),
    p50Ms: over(({ result }) => result.p50Ms),
    p99Ms: over(({ result }) => result.p99Ms),
    gatewayCpuUs: over((one) => cpuOf(one, 'gateway')),
    serviceCpuUs: over((one) => cpuOf(one, 'orders')),
    gatewayRssMb: over(({ use }) => use.gateway?.rssMb),
  };
}

/** Undefined when ours is not among the subjects. */
async function benchLatency(subjects: readonly Subject[], settings: Settings) {
  const ours = subjects.find(({ name }) => name === OURS);
  if (!ours) return undefined;
  const durationMs = Math.min(settings.durationMs, PACED_MS);
  const rounds = Math.round((settings.rounds * settings.durationMs) / durationMs);
  const jobs: GatewayLoad[] = [{ kind: 'paced', perSecond: PACE, durationMs }];
  const direct: Subject = { ...ours, name: DIRECT, roles: ['orders', 'web'] };
  // Short rounds alone would measure code that is still being compiled.
  const warmUp: GatewayLoad[] = [{ kind: 'busy', durationMs: settings.durationMs }];
  const own = { ...settings, durationMs, rounds, warmUp };
  const measurements: GatewayMeasurement[] = await measure({ ...own, subjects: [direct, ours], jobs });
  const without = measurements.filter(({ subject }) => subject === DIRECT);
  const through = measurements.filter(({ subject }) => subject === OURS);
  const added = (value: (result: LoadResult) => number | undefined) =>
    overAll(through)(({ round, result }) => {
      const other = without.find((one) => one.round === round);
      return (value(result) ?? Number.NaN) - ((other && value(other.result)) ?? Number.NaN);
    });
  const latencies = (found: readonly GatewayMeasurement[]) => ({
    p50Ms: overAll(found)(({ result }) => result.p50Ms),
    p99Ms: overAll(found)(({ result }) => result.p99Ms),
  });
  const found: Latency = {
    perSecond: PACE,
    direct: latencies(without),
    through: latencies(through),
    addedP50Ms: added(({ p50Ms }) => p50Ms),
    addedP99Ms: added(({ p99Ms }) => p99Ms),
    gatewayCpuUs: overAll(through)((one) => cpuOf(one, 'gateway')),
  };
  const section: Section = {
    name: 'latency',
    markdown: `## ${PACE} requests a second, whatever the answers do: ${rounds} rounds of ${durationMs} ms\n\n${latencyTable(found)}`,
    json: { summary: found, measurements },
  };
  return { found, section };
}

function overAll(measurements: readonly GatewayMeasurement[]) {
  return (value: (one: GatewayMeasurement) => number | undefined): Spread =>
    spread(measurements.map((one) => value(one) ?? Number.NaN));
}

function cpuOf({ use, result }: GatewayMeasurement, role: string): number {
  return (use[role]?.cpuUs ?? Number.NaN) / result.count;
}

function throughputTable(rows: readonly Throughput[]): string {
  const head = ['gateway', 'asks for', 'behind it', 'Node', 'requests/s', 'ratio', 'p50 ms', 'p99 ms'];
  return table(
    [...head, 'gateway CPU µs', 'service CPU µs', 'gateway RSS MB'],
    rows.map((row) => [
      row.gateway,
      row.asks,
      row.behind,
      row.node,
      shown(row.requestsPerSecond),
      shown(row.ratio, 2),
      shown(row.p50Ms, 2),
      shown(row.p99Ms, 2),
      shown(row.gatewayCpuUs, 1),
      shown(row.serviceCpuUs, 1),
      row.gatewayRssMb.median.toFixed(0),
    ]),
    4,
  );
}

function latencyTable({ direct, through, addedP50Ms, addedP99Ms, gatewayCpuUs }: Latency): string {
  return table(
    ['', 'p50 ms', 'p99 ms', 'gateway CPU µs'],
    [
      ['the service itself', shown(direct.p50Ms, 2), shown(direct.p99Ms, 2), ''],
      ['through the gateway', shown(through.p50Ms, 2), shown(through.p99Ms, 2), shown(gatewayCpuUs, 1)],
      ['added', shown(addedP50Ms, 2), shown(addedP99Ms, 2), ''],
    ],
  );
}

function verdict(rows: readonly Throughput[], latency: Latency | undefined): Section {
  const rowOf = (name: string) => rows.find(({ gateway }) => gateway === name);
  const ours = rowOf(OURS);
  const ahead = (name: string): [string, boolean][] => {
    const other = rowOf(name);
    return ours && other ? [[`ahead of ${name}`, ours.requestsPerSecond.median > other.requestsPerSecond.median]] : [];
  };
  const aims: [string, boolean][] = [
    ...(ours ? [[`${AIMS.cpuUs} µs CPU a request`, ours.gatewayCpuUs.median <= AIMS.cpuUs] as [string, boolean]] : []),
    ...(ours && rowOf(BASELINE)
      ? [[`${AIMS.ratio} x ${BASELINE}`, ours.ratio.median >= AIMS.ratio] as [string, boolean]]
      : []),
    ...ahead('fastify http-proxy'),
    ...ahead('moleculer-web'),
    ...(latency
      ? [[`${AIMS.addedP99Ms} ms added at p99`, latency.addedP99Ms.median <= AIMS.addedP99Ms] as [string, boolean]]
      : []),
  ];
  const lines = aims.map(([aim, reached]) => `- ${reached ? 'reached' : 'not reached'}: ${aim}`);
  return { name: 'aims', markdown: `## Aims\n\n${lines.join('\n')}`, json: Object.fromEntries(aims) };
}
