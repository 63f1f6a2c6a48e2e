import { type Growth, type Measurement, measure, measureGrowth } from './harness.js';
import type { Subject } from './line.js';
import type { LoadResult } from './load.js';
import { provide } from './provide.js';
import { describe, environment, type Section, shown, table, writeReport } from './report.js';
import { choose, packagesOf, type RpcBenchOptions } from './rpc.js';
import type { SidecarLoad } from './sidecar-load.js';
import { OWN, REFERENCE, type SidecarEntry, sidecarPeers } from './sidecar-peers.js';
import { type Spread, spread } from './statistics.js';

export type SidecarBenchOptions = Pick<
  RpcBenchOptions,
  'quick' | 'peers' | 'node' | 'rounds' | 'durationMs' | 'connections' | 'out' | 'nodeFlags' | 'onProgress'
>;

type SidecarMeasurement = Measurement<SidecarLoad, LoadResult>;

const GIB = 2 ** 30;
/** Longest time for the handshakes of the connections that are held. */
const PATIENCE_MS = 60_000;
const RIVAL = 'stunnel';
/** Ours beside the reference: at most so many times as much, of handshakes at least. */
const AIMS = { handshakes: 0.9, down: 1.0, up: 1.2, p99At64: 1.2, idleKb: 45 } as const;

/** One column: what is measured, on which job. */
interface Metric {
  readonly name: string;
  readonly digits: number;
  readonly better: 'more' | 'less';
  of(one: SidecarMeasurement): number;
}

const perHandshake = job('handshakes');
const metrics = {
  handshakes: metric('handshakes/s', 0, 'more', perHandshake, ({ result }) => result.count / result.seconds),
  handshakeCpu: metric('CPU µs', 0, 'less', perHandshake, (one) => cpuUs(one) / one.result.count),
  down: metric('CPU s/GiB down', 2, 'less', transfer('down'), cpuPerGib),
  up: metric('up', 2, 'less', transfer('up'), cpuPerGib),
  ping1Cpu: metric('ping CPU µs, 1', 1, 'less', ping(1), (one) => cpuUs(one) / one.result.count),
  ping64Cpu: metric('64', 1, 'less', ping(64), (one) => cpuUs(one) / one.result.count),
  p99At1: metric('p99 ms, 1', 2, 'less', ping(1), ({ result }) => result.p99Ms ?? Number.NaN),
  p99At64: metric('64', 2, 'less', ping(64), ({ result }) => result.p99Ms ?? Number.NaN),
} as const satisfies Record<string, Metric>;

type MetricName = keyof typeof metrics;

interface Row {
  readonly proxy: string;
  readonly asks: SidecarEntry['asks'];
  readonly values: Readonly<Record<MetricName, Spread>>;
  /** Beside the reference in the same round. */
  readonly ratios: Readonly<Record<MetricName, Spread>>;
  /** Of the process of the proxy, KB for each idle connection. */
  readonly idleKb: number;
}

/** A proxy before a plain program, mutual TLS 1.3 outside; proxies in alternation, one process and one thread of work each. */
export async function benchSidecar(options: SidecarBenchOptions): Promise<void> {
  const { quick, nodeFlags, onProgress } = options;
  const rounds = options.rounds ?? (quick ? 2 : 7);
  const durationMs = options.durationMs ?? (quick ? 500 : 2500);
  const connections = options.connections ?? (quick ? 400 : 1000);
  const chosen = choose('peer', sidecarPeers, options.peers, ({ name }) => name);
  const { subjects, absent } = await provide(chosen, options.node, {
    program: new URL('sidecar-process.js', import.meta.url),
    roles: ['program', 'sidecar', 'caller'],
  });
  for (const { peer, reason, output } of absent) onProgress(`left out: ${peer}: ${reason}\n${output}`);
  if (subjects.length === 0) throw new Error('There is no proxy left to measure.');
  const present = chosen.filter(({ name }) => subjects.some((subject) => subject.name === name));
  const where = await environment(packagesOf(present, false), packagesOf(present, true));

  const jobs: SidecarLoad[] = [
    { kind: 'handshakes', durationMs },
    { kind: 'transfer', direction: 'down', durationMs },
    { kind: 'transfer', direction: 'up', durationMs },
    { kind: 'ping', connections: 1, durationMs },
    { kind: 'ping', connections: 64, durationMs },
  ];
  const settings = { durationMs, rounds, nodeFlags, onProgress };
  const isOf = (layer: 4 | 7) => (subject: Subject) =>
    present.some((entry) => entry.name === subject.name && entry.layer === layer);
  const byBytes = subjects.filter(isOf(4));
  const measurements: SidecarMeasurement[] = await measure({ ...settings, subjects: byBytes, jobs });
  const requests: SidecarMeasurement[] = await measure({
    ...settings,
    // Ours on both layers: the difference is what it costs to be asked about each request.
    subjects: subjects.filter((subject) => isOf(7)(subject) || subject.name === OWN),
    jobs: [
      { kind: 'requests', connections: 1, durationMs },
      { kind: 'requests', connections: 64, durationMs },
    ],
  });
  const idle: Growth[] = [];
  for (const subject of byBytes) {
    onProgress(`${connections} connections through ${subject.name}`);
    const hold: SidecarLoad = { kind: 'hold', connections };
    idle.push(await measureGrowth({ subject, warmUp: hold, job: hold, durationMs: PATIENCE_MS, nodeFlags }));
  }
  const rows = present
    .filter(({ layer }) => layer === 4)
    .map((entry) => summarize(measurements, idle, connections, entry));
  const sections = [
    {
      name: 'proxies',
      markdown: `## Proxies\n\n${proxyTable(rows, connections)}`,
      json: { summary: rows, measurements, idle },
    },
    {
      name: 'ratios',
      markdown: `## Beside ${REFERENCE} in the same round\n\n${ratioTable(rows)}`,
      json: rows.map(({ proxy, ratios }) => ({ proxy, ratios })),
    },
    {
      name: 'requests',
      markdown: `## Requests in HTTP/1.1\n\n${requestTable(present, requests)}`,
      json: { measurements: requests },
    },
    verdict(rows),
  ];
  const head = [
    `${describe(where)}; ${rounds} rounds of ${durationMs} ms.`,
    ...absent.map(({ peer, reason }) => `Left out: ${peer}, ${reason}.`),
  ];
  console.log(`\n${[...head, ...sections.map(({ markdown }) => markdown)].join('\n\n')}`);
  await writeReport(options.out, 'sidecar', head, sections, {
    environment: where,
    settings: { rounds, durationMs, connections },
    absent: absent.map(({ peer, reason }) => ({ peer, reason })),
  });
}

function job(kind: SidecarLoad['kind']) {
  return (load: SidecarLoad) => load.kind === kind;
}

function transfer(direction: 'down' | 'up') {
  return (load: SidecarLoad) => load.kind === 'transfer' && load.direction === direction;
}

function ping(connections: number) {
  return (load: SidecarLoad) => load.kind === 'ping' && load.connections === connections;
}

/** NaN where the measurement is of another job. */
function metric(
  name: string,
  digits: number,
  better: Metric['better'],
  isJob: (load: SidecarLoad) => boolean,
  value: (one: SidecarMeasurement) => number,
): Metric {
  return { name, digits, better, of: (one) => (isJob(one.job) ? value(one) : Number.NaN) };
}

function cpuUs({ use }: SidecarMeasurement): number {
  return use.sidecar?.cpuUs ?? Number.NaN;
}

function cpuPerGib(one: SidecarMeasurement): number {
  return cpuUs(one) / 1e6 / (one.result.count / GIB);
}

function summarize(
  all: readonly SidecarMeasurement[],
  idle: readonly Growth[],
  connections: number,
  { name, asks }: SidecarEntry,
): Row {
  const valuesOf = (proxy: string, { of }: Metric) =>
    new Map(
      all
        .filter(({ subject }) => subject === proxy)
        .map((one) => [one.round, of(one)] as const)
        .filter(([, value]) => !Number.isNaN(value)),
    );
  const each = (value: (metric: Metric) => Spread) =>
    Object.fromEntries(Object.entries(metrics).map(([key, metric]) => [key, value(metric)])) as Row['values'];
  const growth = idle.find(({ subject }) => subject === name)?.growth.sidecar?.rssBytes ?? Number.NaN;
  return {
    proxy: name,
    asks,
    values: each((metric) => spread([...valuesOf(name, metric).values()])),
    ratios: each((metric) => {
      const reference = valuesOf(REFERENCE, metric);
      return spread([...valuesOf(name, metric)].map(([round, value]) => value / (reference.get(round) ?? Number.NaN)));
    }),
    idleKb: growth / connections / 1000,
  };
}

function proxyTable(rows: readonly Row[], connections: number): string {
  return table(
    ['proxy', 'asks for', ...Object.values(metrics).map(({ name }) => name), `KB, ${connections} idle`],
    rows.map(({ proxy, asks, values, idleKb }) => [
      proxy,
      asks,
      ...Object.entries(metrics).map(([key, { digits }]) => shown(values[key as MetricName], digits)),
      idleKb.toFixed(1),
    ]),
    2,
  );
}

function ratioTable(rows: readonly Row[]): string {
  return table(
    ['proxy', ...Object.values(metrics).map(({ name }) => name)],
    rows.map(({ proxy, ratios }) => [proxy, ...Object.keys(metrics).map((key) => shown(ratios[key as MetricName], 2))]),
  );
}

function requestTable(entries: readonly SidecarEntry[], all: readonly SidecarMeasurement[]): string {
  const over = (proxy: string, connections: number, value: (one: SidecarMeasurement) => number) =>
    spread(
      all
        .filter(({ subject, job }) => subject === proxy && job.kind === 'requests' && job.connections === connections)
        .map(value),
    );
  const cpu = (one: SidecarMeasurement) => cpuUs(one) / one.result.count;
  const p99 = ({ result }: SidecarMeasurement) => result.p99Ms ?? Number.NaN;
  return table(
    ['proxy', 'asked about each', 'CPU µs, 1', '64', 'p99 ms, 1', '64', 'requests/s, 64'],
    entries
      .filter(({ name }) => all.some(({ subject }) => subject === name))
      .map(({ name, layer }) => [
        name,
        layer === 4 ? 'connection' : 'request',
        shown(over(name, 1, cpu), 1),
        shown(over(name, 64, cpu), 1),
        shown(over(name, 1, p99), 2),
        shown(over(name, 64, p99), 2),
        shown(over(name, 64, ({ result }) => result.count / result.seconds)),
      ]),
    2,
  );
}

/** Of what was measured: an aim beside a proxy that is absent is left out. */
function verdict(rows: readonly Row[]): Section {
  const rowOf = (name: string) => rows.find(({ proxy }) => proxy === name);
  const ours = rowOf(OWN);
  const rival = rowOf(RIVAL);
  const aims: [string, boolean][] = [];
  if (ours) aims.push([`${AIMS.idleKb} KB an idle connection`, ours.idleKb <= AIMS.idleKb]);
  if (ours && rowOf(REFERENCE)) {
    const { handshakes, down, up, p99At64 } = ours.ratios;
    aims.push(
      [`${AIMS.handshakes} x the handshakes of ${REFERENCE}`, handshakes.median >= AIMS.handshakes],
      [`${AIMS.down} x its CPU for a GiB down`, down.median <= AIMS.down],
      [`${AIMS.up} x its CPU for a GiB up`, up.median <= AIMS.up],
      [`${AIMS.p99At64} x its p99 at 64 connections`, p99At64.median <= AIMS.p99At64],
    );
  }
  if (ours && rival) {
    for (const [key, { name, better }] of Object.entries(metrics)) {
      const [own, other] = [ours, rival].map(({ values }) => values[key as MetricName].median);
      const ahead = better === 'more' ? Number(own) > Number(other) : Number(own) < Number(other);
      aims.push([`ahead of ${RIVAL}: ${key} (${name})`, ahead]);
    }
    aims.push([`ahead of ${RIVAL}: idle memory`, ours.idleKb < rival.idleKb]);
  }
  const lines = aims.map(([aim, reached]) => `- ${reached ? 'reached' : 'not reached'}: ${aim}`);
  return { name: 'aims', markdown: `## Aims\n\n${lines.join('\n')}`, json: Object.fromEntries(aims) };
}
