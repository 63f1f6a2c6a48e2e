import { measure } from './harness.js';
import type { Load } from './load.js';
import { type Section, shown, table } from './report.js';
import type { Contestant, RpcMeasurement, RpcSettings } from './rpc.js';
import { type Spread, spread } from './statistics.js';

/** What the others are compared with. */
const BASELINE = 'raw grpc-js';

const kinds = [
  { title: '200 B, JSON', load: { kind: 'receipts' } },
  { title: '200 B, bytes', load: { kind: 'blobs', bytes: 200 } },
  { title: '64 KiB, bytes', load: { kind: 'blobs', bytes: 64 * 1024 } },
] as const;
type Kind = (typeof kinds)[number];

/** One peer and one size of message, over all rounds. */
interface Summary {
  readonly peer: string;
  readonly node: string;
  readonly messages: string;
  readonly messagesPerSecond: Spread;
  /** Of bytes. */
  readonly mbPerSecond: Spread | undefined;
  /** Throughput relative to the baseline in the same round. */
  readonly ratio: Spread;
  /** A message, of the client and of the server. */
  readonly clientCpuUs: Spread;
  readonly serverCpuUs: Spread;
}

/** One server stream at a time, as fast as the client reads. */
export async function benchStreams(contestants: readonly Contestant[], settings: RpcSettings): Promise<Section[]> {
  const { durationMs } = settings;
  const subjects = contestants.filter(({ streams }) => streams);
  const jobs = kinds.map(({ load }): Load => ({ ...load, durationMs }));
  const measurements: RpcMeasurement[] = await measure({ ...settings, subjects, jobs });
  const rows = kinds.flatMap((kind) => subjects.map(({ name }) => summarize(measurements, name, kind)));
  if (rows.length === 0) return [];
  return [
    {
      name: 'streams',
      markdown: `## Server streams, one at a time\n\n${tableOf(rows)}`,
      json: { summary: rows, measurements },
    },
  ];
}

function summarize(all: readonly RpcMeasurement[], peer: string, { title, load }: Kind): Summary {
  const of = (name: string) => all.filter(({ subject, job }) => subject === name && isOf(load, job));
  const rate = ({ result }: RpcMeasurement) => result.count / result.seconds;
  const own = of(peer);
  const baseline = new Map(of(BASELINE).map((one) => [one.round, rate(one)]));
  const over = (value: (one: RpcMeasurement) => number) => spread(own.map(value));
  return {
    peer,
    node: own[0]?.node ?? '',
    messages: title,
    messagesPerSecond: over(rate),
    mbPerSecond: 'bytes' in load ? over((one) => (rate(one) * load.bytes) / 1e6) : undefined,
    ratio: over((one) => rate(one) / (baseline.get(one.round) ?? Number.NaN)),
    clientCpuUs: over(({ use, result }) => (use.web?.cpuUs ?? Number.NaN) / result.count),
    serverCpuUs: over(({ use, result }) => (use.orders?.cpuUs ?? Number.NaN) / result.count),
  };
}

function isOf(load: Kind['load'], job: Load): boolean {
  if (load.kind !== job.kind) return false;
  return !('bytes' in load && 'bytes' in job) || load.bytes === job.bytes;
}

function tableOf(rows: readonly Summary[]): string {
  return table(
    ['peer', 'Node', 'messages', 'messages/s', 'MB/s', 'ratio', 'client CPU µs', 'server CPU µs'],
    rows.map((row) => [
      row.peer,
      row.node,
      row.messages,
      shown(row.messagesPerSecond),
      row.mbPerSecond ? shown(row.mbPerSecond) : '',
      shown(row.ratio, 2),
      shown(row.clientCpuUs, 1),
      shown(row.serverCpuUs, 1),
    ]),
    3,
  );
}
