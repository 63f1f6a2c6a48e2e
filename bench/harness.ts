import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Authority, createAuthority } from '@sallyport/pki';
import type { Usage } from './child.js';
import { Line, type Subject } from './line.js';

export interface HarnessOptions<Job> {
  readonly subjects: readonly Subject[];
  /** What each of them is measured at, one after the other. */
  readonly jobs: readonly Job[];
  /** What each of them does before, unmeasured. Left out: every job once. */
  readonly warmUp?: readonly Job[];
  /** How long a job takes, for the patience with it. */
  readonly durationMs: number;
  readonly rounds: number;
  /** Flags of Node for every process, e.g. `--cpu-prof`. */
  readonly nodeFlags: readonly string[];
  readonly onProgress: (text: string) => void;
}

/** One subject at one job in one round. */
export interface Measurement<Job, Result> {
  readonly subject: string;
  /** Version of Node that ran it. */
  readonly node: string;
  readonly job: Job;
  readonly round: number;
  readonly result: Result;
  readonly use: Readonly<Record<string, Use>>;
}

/** What the process of a role used for one measurement. */
export interface Use {
  readonly cpuUs: number;
  readonly rssMb: number;
}

/**
 * Starts all processes and lets each subject warm up; then measures one after the other,
 * round by round, every second round in reverse: whatever the machine does besides meets all of them. Ends every process it
 * has started.
 */
export async function measure<Job, Result>(options: HarnessOptions<Job>): Promise<Measurement<Job, Result>[]> {
  const { subjects, jobs, warmUp = jobs, durationMs, rounds, nodeFlags, onProgress } = options;
  return await inWorkshop(async (authority, folder) => {
    const lines = new Map<string, Line<Job, Result>>();
    try {
      for (const [index, subject] of subjects.entries()) {
        onProgress(`warming up ${subject.name}`);
        const own = { authority, folder: join(folder, String(index)), nodeFlags };
        const line = await Line.start<Job, Result>(subject, own);
        lines.set(subject.name, line);
        for (const job of warmUp) await line.run(job, durationMs);
      }
      const found: Measurement<Job, Result>[] = [];
      for (let round = 1; round <= rounds; round++) {
        onProgress(`round ${round} of ${rounds}`);
        for (const job of jobs) {
          for (const [subject, line] of round % 2 === 1 ? lines : [...lines].reverse()) {
            found.push({ subject, node: line.node, job, round, ...(await measureOnce(line, job, durationMs)) });
          }
        }
      }
      return found;
    } finally {
      await Promise.all([...lines.values()].map((line) => line.stop()));
    }
  });
}

async function measureOnce<Job, Result>(line: Line<Job, Result>, job: Job, durationMs: number) {
  const before = await line.usage();
  const result = await line.run(job, durationMs);
  const after = await line.usage();
  const use = Object.fromEntries(
    [...after].map(([role, { cpuUs, rssBytes }]) => [
      role,
      { cpuUs: cpuUs - (before.get(role)?.cpuUs ?? 0), rssMb: rssBytes / 2 ** 20 },
    ]),
  );
  return { result, use };
}

/** What the processes of a subject kept of one job. */
export interface Growth {
  readonly subject: string;
  readonly node: string;
  readonly growth: Readonly<Record<string, { readonly rssBytes: number; readonly heapBytes: number }>>;
}

export interface GrowthOptions<Job> {
  readonly subject: Subject;
  /** Done first, so that what is needed once is there already. */
  readonly warmUp: Job;
  readonly job: Job;
  readonly durationMs: number;
  readonly nodeFlags: readonly string[];
}

/** Lets a subject do one job in processes of their own, and measures by how much they have grown once it is done. */
export async function measureGrowth<Job>(options: GrowthOptions<Job>): Promise<Growth> {
  const { subject, warmUp, job, durationMs, nodeFlags } = options;
  return await inWorkshop(async (authority, folder) => {
    const own = { authority, folder, nodeFlags: ['--expose-gc', ...nodeFlags] };
    const line = await Line.start<Job, unknown>(subject, own);
    try {
      await line.run(warmUp, durationMs);
      const before = await settledUsage(line);
      await line.run(job, durationMs);
      const after = await settledUsage(line);
      const growth = Object.fromEntries([...after].map(([role, usage]) => [role, difference(usage, before.get(role))]));
      return { subject: subject.name, node: line.node, growth };
    } finally {
      await line.stop();
    }
  });
}

/** The first question collects the garbage; what that sets free goes in the turns after it. */
async function settledUsage(line: Line<never, unknown>): Promise<Map<string, Usage>> {
  await line.usage();
  await sleep(300);
  return await line.usage();
}

function difference(after: Usage, before: Usage | undefined) {
  return {
    rssBytes: after.rssBytes - (before?.rssBytes ?? 0),
    heapBytes: after.heapBytes - (before?.heapBytes ?? 0),
  };
}

async function inWorkshop<T>(work: (authority: Authority, folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-bench-'));
  try {
    return await work(createAuthority({ trustDomain: 'bench.test' }), folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
