import { type HarnessOptions, type Measurement, measure } from './harness.js';
import { loadPeer, peerNames } from './peers.js';
import { describe, environment, shown, table, writeJson } from './report.js';
import { type Spread, spread } from './statistics.js';

/** What the others are compared with. */
const BASELINE = 'raw grpc-js';

export interface RpcBenchOptions {
  /** Shorter, less exact: under a minute. */
  readonly quick: boolean;
  /** Left out: 9, or 3 when quick. */
  readonly rounds?: number | undefined;
  /** Of each measurement. Left out: 2,000, or 1,000 when quick. */
  readonly durationMs?: number | undefined;
  /** Calls in flight, one measurement each. Left out: 1, 8 and 32. */
  readonly concurrencies?: readonly number[] | undefined;
  /** File the result is written to. */
  readonly json: string;
  readonly nodeFlags: readonly string[];
}

/** Unary calls of about 200 bytes each way over mutual TLS on loopback, one connection, peers in alternation. */
export async function benchRpc(options: RpcBenchOptions): Promise<void> {
  const { quick, rounds, durationMs, concurrencies = [1, 8, 32], json, nodeFlags } = options;
  const usualMs = quick ? 1000 : 2000;
  const settings = {
    peers: peerNames,
    concurrencies,
    rounds: rounds ?? (quick ? 3 : 9),
    durationMs: durationMs ?? usualMs,
    warmUpMs: durationMs ?? usualMs,
  } satisfies Partial<HarnessOptions>;
  const packages = (await Promise.all(peerNames.map(loadPeer))).flatMap((peer) => peer.packages);
  const where = await environment([...new Set(packages)]);
  console.log(`${describe(where)}\n`);

  const measurements = await measure({ ...settings, nodeFlags, onProgress: (text) => console.error(text) });
  const rows = settings.concurrencies.flatMap((concurrency) =>
    peerNames.map((peer) => summarize(measurements, peer, concurrency)),
  );
  console.log(`\n${tableOf(rows)}`);
  await writeJson(json, { scenario: 'rpc', environment: where, settings, summary: rows, measurements });
}

/** One peer at one concurrency, over all rounds. */
interface Summary {
  readonly peer: string;
  readonly concurrency: number;
  readonly callsPerSecond: Spread;
  /** Throughput relative to the baseline in the same round. */
  readonly ratio: Spread;
  readonly p50Ms: Spread;
  readonly p99Ms: Spread;
  readonly clientCpuUs: Spread;
  readonly serverCpuUs: Spread;
  readonly clientRssMb: Spread;
  readonly serverRssMb: Spread;
}

function summarize(all: readonly Measurement[], peer: string, concurrency: number): Summary {
  const of = (name: string) => all.filter((one) => one.peer === name && one.concurrency === concurrency);
  const own = of(peer);
  const baseline = new Map(of(BASELINE).map(({ round, callsPerSecond }) => [round, callsPerSecond]));
  const over = (value: (one: Measurement) => number) => spread(own.map(value));
  return {
    peer,
    concurrency,
    callsPerSecond: over((one) => one.callsPerSecond),
    ratio: over((one) => one.callsPerSecond / (baseline.get(one.round) ?? Number.NaN)),
    p50Ms: over((one) => one.p50Ms),
    p99Ms: over((one) => one.p99Ms),
    clientCpuUs: over((one) => one.clientCpuUs),
    serverCpuUs: over((one) => one.serverCpuUs),
    clientRssMb: over((one) => one.clientRssMb),
    serverRssMb: over((one) => one.serverRssMb),
  };
}

function tableOf(rows: readonly Summary[]): string {
  const head = [
    'peer',
    'in flight',
    'calls/s',
    'ratio',
    'p50 ms',
    'p99 ms',
    'client CPU µs',
    'server CPU µs',
    'RSS MB',
  ];
  return table(
    head,
    rows.map((row) => [
      row.peer,
      String(row.concurrency),
      shown(row.callsPerSecond),
      shown(row.ratio, 2),
      shown(row.p50Ms, 2),
      shown(row.p99Ms, 2),
      shown(row.clientCpuUs),
      shown(row.serverCpuUs),
      `${row.clientRssMb.median.toFixed(0)} + ${row.serverRssMb.median.toFixed(0)}`,
    ]),
  );
}
