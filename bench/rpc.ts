import type { HarnessOptions, Measurement } from './harness.js';
import { benchIdle } from './idle.js';
import type { Load, LoadResult } from './load.js';
import { type PeerEntry, peers } from './peers.js';
import { type Provided, provide } from './provide.js';
import { describe, environment, type Section, writeReport } from './report.js';
import { benchStreams } from './streams.js';
import { benchUnary } from './unary.js';

export interface RpcBenchOptions {
  /** Shorter, less exact: under two minutes. */
  readonly quick: boolean;
  /** Left out: all of them. */
  readonly peers?: readonly string[] | undefined;
  /** Of `unary`, `streams` and `idle`. Left out: all three. */
  readonly parts?: readonly string[] | undefined;
  /** Node that runs every peer, e.g. `24`. Left out: the one of the harness, or a newer one where a peer needs it. */
  readonly node?: string | undefined;
  /** Left out: 9, or 3 when quick. */
  readonly rounds?: number | undefined;
  /** Of each measurement. Left out: 2,000, or 500 when quick. */
  readonly durationMs?: number | undefined;
  /** Calls in flight, one measurement each. Left out: 1, 4, 8, 32 and 128, or 1, 8 and 32 when quick. */
  readonly concurrencies?: readonly number[] | undefined;
  /** Left out: 1,000, or 500 when quick. */
  readonly connections?: number | undefined;
  /** Folder for the report. */
  readonly out: string;
  readonly nodeFlags: readonly string[];
  readonly onProgress: (text: string) => void;
}

/** What the parts of the scenario have in common. */
export interface RpcSettings extends Pick<HarnessOptions<Load>, 'durationMs' | 'rounds' | 'nodeFlags' | 'onProgress'> {
  readonly concurrencies: readonly number[];
  readonly connections: number;
}

export type RpcMeasurement = Measurement<Load, LoadResult>;

/** A peer and the processes that can be started for it. */
export interface Contestant extends PeerEntry, Pick<Provided['subjects'][number], 'program' | 'roles' | 'node'> {}

const parts = { unary: benchUnary, streams: benchStreams, idle: benchIdle };
type Part = keyof typeof parts;

/** Calls over loopback, peers in alternation: unary, server streams, and what connections cost that do nothing. */
export async function benchRpc(options: RpcBenchOptions): Promise<void> {
  const { quick, nodeFlags, onProgress } = options;
  const settings: RpcSettings = {
    rounds: options.rounds ?? (quick ? 3 : 9),
    durationMs: options.durationMs ?? (quick ? 500 : 2000),
    concurrencies: options.concurrencies ?? (quick ? [1, 8, 32] : [1, 4, 8, 32, 128]),
    connections: options.connections ?? (quick ? 500 : 1000),
    nodeFlags,
    onProgress,
  };
  const chosenParts = choose('part', Object.keys(parts) as Part[], options.parts, (name) => name);
  const chosenPeers = choose('peer', peers, options.peers, ({ name }) => name);

  const { subjects, absent } = await provide(chosenPeers, options.node, {
    program: new URL('rpc-process.js', import.meta.url),
    roles: ['orders', 'web'],
  });
  for (const { peer, reason, output } of absent) onProgress(`left out: ${peer}: ${reason}\n${output}`);
  if (subjects.length === 0) throw new Error('There is no peer left to measure.');
  const contestants = subjects.flatMap((subject) =>
    chosenPeers.filter(({ name }) => name === subject.name).map((entry): Contestant => ({ ...entry, ...subject })),
  );
  const where = await environment(packagesOf(contestants, false), packagesOf(contestants, true));
  const sections: Section[] = [];
  for (const part of chosenParts) sections.push(...(await parts[part](contestants, settings)));

  const { rounds, durationMs } = settings;
  const head = [
    `${describe(where)}; ${rounds} rounds of ${durationMs} ms.`,
    ...absent.map(({ peer, reason }) => `Left out: ${peer}, ${reason}.`),
  ];
  console.log(`\n${[...head, ...sections.map(({ markdown }) => markdown)].join('\n\n')}`);
  await writeReport(options.out, 'rpc', head, sections, {
    environment: where,
    settings: { ...settings, nodeFlags: undefined, onProgress: undefined },
    absent: absent.map(({ peer, reason }) => ({ peer, reason })),
  });
}

/** All, or those that are named. Throws if there is no such one. */
export function choose<T>(
  what: string,
  all: readonly T[],
  names: readonly string[] | undefined,
  nameOf: (one: T) => string,
) {
  const unknown = names?.find((name) => !all.some((one) => nameOf(one) === name));
  if (unknown !== undefined)
    throw new Error(`There is no ${what} ${unknown}; there are: ${all.map(nameOf).join(', ')}.`);
  return names ? all.filter((one) => names.includes(nameOf(one))) : all;
}

/** Those of bench/foreign, or those of this repository. */
export function packagesOf(
  contestants: readonly Pick<PeerEntry, 'foreign' | 'packages'>[],
  foreign: boolean,
): string[] {
  return [...new Set(contestants.filter((one) => one.foreign === foreign).flatMap(({ packages }) => packages))];
}
