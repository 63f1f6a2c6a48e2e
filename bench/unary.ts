import { measure } from './harness.js';
import type { Load } from './load.js';
import { type Panel, plot, type Series } from './plot.js';
import { type Section, shown, table } from './report.js';
import type { Contestant, RpcMeasurement, RpcSettings } from './rpc.js';
import { type Spread, spread } from './statistics.js';

/** What the others are compared with. */
const BASELINE = 'raw grpc-js';

/** One peer at one concurrency, over all rounds. */
interface Summary {
  readonly peer: string;
  readonly tls: Contestant['tls'];
  readonly node: string;
  readonly concurrency: number;
  readonly callsPerSecond: Spread;
  /** Throughput relative to the baseline in the same round. */
  readonly ratio: Spread;
  readonly p50Ms: Spread;
  readonly p99Ms: Spread;
  /** A call, of the client and of the server. */
  readonly clientCpuUs: Spread;
  readonly serverCpuUs: Spread;
  readonly clientRssMb: Spread;
  readonly serverRssMb: Spread;
}

/** Unary calls of about 200 bytes each way. */
export async function benchUnary(contestants: readonly Contestant[], settings: RpcSettings): Promise<Section[]> {
  const { concurrencies, durationMs } = settings;
  const jobs = concurrencies.map((concurrency): Load => ({ kind: 'unary', concurrency, durationMs }));
  const measurements: RpcMeasurement[] = await measure({ ...settings, subjects: contestants, jobs });
  const rows = concurrencies.flatMap((concurrency) =>
    contestants.map((contestant) => summarize(measurements, contestant, concurrency)),
  );
  if (rows.length === 0) return [];
  return [
    {
      name: 'unary',
      markdown: `## Unary calls, some 200 B each way\n\n${tableOf(rows)}`,
      json: { summary: rows, measurements },
      svg: plotOf(rows),
    },
  ];
}

function summarize(all: readonly RpcMeasurement[], { name, tls }: Contestant, concurrency: number): Summary {
  const of = (peer: string) =>
    all.filter(({ subject, job }) => subject === peer && job.kind === 'unary' && job.concurrency === concurrency);
  const rate = ({ result }: RpcMeasurement) => result.count / result.seconds;
  const own = of(name);
  const baseline = new Map(of(BASELINE).map((one) => [one.round, rate(one)]));
  const over = (value: (one: RpcMeasurement) => number | undefined) =>
    spread(own.map((one) => value(one) ?? Number.NaN));
  return {
    peer: name,
    tls,
    node: own[0]?.node ?? '',
    concurrency,
    callsPerSecond: over(rate),
    ratio: over((one) => rate(one) / (baseline.get(one.round) ?? Number.NaN)),
    p50Ms: over(({ result }) => result.p50Ms),
    p99Ms: over(({ result }) => result.p99Ms),
    clientCpuUs: over(({ use, result }) => (use.web?.cpuUs ?? Number.NaN) / result.count),
    serverCpuUs: over(({ use, result }) => (use.orders?.cpuUs ?? Number.NaN) / result.count),
    clientRssMb: over(({ use }) => use.web?.rssMb),
    serverRssMb: over(({ use }) => use.orders?.rssMb),
  };
}

function tableOf(rows: readonly Summary[]): string {
  const head = ['peer', 'TLS', 'Node', 'in flight', 'calls/s', 'ratio', 'p50 ms', 'p99 ms'];
  return table(
    [...head, 'client CPU µs', 'server CPU µs', 'RSS MB'],
    rows.map((row) => [
      row.peer,
      row.tls,
      row.node,
      String(row.concurrency),
      shown(row.callsPerSecond),
      shown(row.ratio, 2),
      shown(row.p50Ms, 2),
      shown(row.p99Ms, 2),
      shown(row.clientCpuUs, 1),
      shown(row.serverCpuUs, 1),
      `${row.clientRssMb.median.toFixed(0)} + ${row.serverRssMb.median.toFixed(0)}`,
    ]),
    3,
  );
}

function plotOf(rows: readonly Summary[]): string {
  const panel = (title: string, of: (row: Summary) => Spread): Panel => ({
    title,
    xTitle: 'calls in flight',
    series: [...new Set(rows.map(({ peer }) => peer))].map((peer) => seriesOf(rows, peer, of)),
  });
  return plot([
    panel('calls per second', (row) => row.callsPerSecond),
    panel('p50, ms', (row) => row.p50Ms),
    panel('p99, ms', (row) => row.p99Ms),
  ]);
}

function seriesOf(rows: readonly Summary[], peer: string, of: (row: Summary) => Spread): Series {
  const own = rows.filter((row) => row.peer === peer);
  const plain = own[0]?.tls === 'none';
  return {
    name: plain ? `${peer}, no TLS` : peer,
    dashed: plain,
    points: own.map((row) => ({ x: row.concurrency, y: of(row).median })),
  };
}
