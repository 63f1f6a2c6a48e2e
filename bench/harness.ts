import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Authority, createAuthority } from '@sallyport/pki';
import type { LoadOptions, LoadResult } from './load.js';
import type { Place } from './peer.js';
import type { Answer, ProcessUsage, Question } from './peer-process.js';

export interface HarnessOptions {
  readonly peers: readonly string[];
  /** Calls in flight, one measurement each. */
  readonly concurrencies: readonly number[];
  readonly rounds: number;
  readonly durationMs: number;
  readonly warmUpMs: number;
  /** Flags of Node for the processes of the peers, e.g. `--cpu-prof`. */
  readonly nodeFlags: readonly string[];
  readonly onProgress: (text: string) => void;
}

/** One peer at one concurrency in one round. */
export interface Measurement {
  readonly peer: string;
  readonly concurrency: number;
  readonly round: number;
  readonly callsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Per call. */
  readonly clientCpuUs: number;
  readonly serverCpuUs: number;
  readonly clientRssMb: number;
  readonly serverRssMb: number;
}

/** Longest a process may take to answer beyond the load it was asked for. */
const PATIENCE_MS = 20_000;

/**
 * Starts the server and the client of every peer, then measures one after the other, round by round, every second round
 * in reverse: whatever the machine does besides meets all of them. Ends every process it has started.
 */
export async function measure(options: HarnessOptions): Promise<Measurement[]> {
  const { peers, concurrencies, rounds, durationMs, warmUpMs, onProgress } = options;
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-bench-'));
  const authority = createAuthority({ trustDomain: 'bench.test' });
  const pairs: Pair[] = [];
  try {
    for (const [index, peer] of peers.entries()) {
      const pair = await startPair(peer, authority, join(folder, String(index)), options.nodeFlags);
      pairs.push(pair);
      onProgress(`warming up ${peer}`);
      for (const concurrency of concurrencies) await pair.client.load({ concurrency, durationMs: warmUpMs });
    }
    const found: Measurement[] = [];
    for (let round = 1; round <= rounds; round++) {
      onProgress(`round ${round} of ${rounds}`);
      for (const concurrency of concurrencies) {
        for (const pair of round % 2 === 1 ? pairs : pairs.toReversed()) {
          found.push({ ...(await measureOnce(pair, { concurrency, durationMs })), round });
        }
      }
    }
    return found;
  } finally {
    await Promise.all(pairs.map((pair) => pair.stop()));
    await rm(folder, { recursive: true, force: true });
  }
}

interface Pair {
  readonly peer: string;
  readonly server: PeerProcess;
  readonly client: PeerProcess;
  stop(): Promise<void>;
}

async function startPair(
  peer: string,
  authority: Authority,
  folder: string,
  nodeFlags: readonly string[],
): Promise<Pair> {
  const issue = async (service: string): Promise<Place> => {
    const identity = authority.issue({ id: `spiffe://bench.test/svc/${service}`, dns: ['localhost'] });
    return { folder, identity: await identity.write(join(folder, service)) };
  };
  const server = await PeerProcess.start([peer, 'server', JSON.stringify(await issue('orders'))], nodeFlags);
  try {
    const place = JSON.stringify(await issue('web'));
    const client = await PeerProcess.start([peer, 'client', place, server.address], nodeFlags);
    const stop = async () => {
      await client.stop();
      await server.stop();
    };
    return { peer, server, client, stop };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function measureOnce({ peer, server, client }: Pair, load: LoadOptions): Promise<Omit<Measurement, 'round'>> {
  const before = await server.usage();
  const { load: result, usage: clientUsage } = await client.load(load);
  const after = await server.usage();
  return {
    peer,
    concurrency: load.concurrency,
    callsPerSecond: result.calls / result.seconds,
    p50Ms: result.p50Ms,
    p99Ms: result.p99Ms,
    clientCpuUs: clientUsage.cpuUs / result.calls,
    serverCpuUs: (after.cpuUs - before.cpuUs) / result.calls,
    clientRssMb: clientUsage.rssBytes / 2 ** 20,
    serverRssMb: after.rssBytes / 2 ** 20,
  };
}

/** A child process that answers one question at a time. */
class PeerProcess {
  readonly #child: ChildProcess;
  address = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(args: readonly string[], nodeFlags: readonly string[]): Promise<PeerProcess> {
    const program = fileURLToPath(new URL('peer-process.js', import.meta.url));
    const peerProcess = new PeerProcess(fork(program, args, { execArgv: [...nodeFlags] }));
    try {
      peerProcess.address = (await peerProcess.#answer<{ ready: string }>(PATIENCE_MS)).ready;
      return peerProcess;
    } catch (error) {
      await peerProcess.stop();
      throw error;
    }
  }

  async usage(): Promise<ProcessUsage> {
    return (await this.#ask<{ usage: ProcessUsage }>({ ask: 'usage' })).usage;
  }

  load(options: LoadOptions): Promise<{ load: LoadResult; usage: ProcessUsage }> {
    return this.#ask({ ask: 'load', ...options }, options.durationMs);
  }

  /** Asks it to end, and sees to it. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
    const impatience = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    if (this.#child.connected) this.#child.send({ ask: 'stop' } satisfies Question);
    await ended;
    clearTimeout(impatience);
  }

  #ask<T extends Answer>(question: Question, extraMs = 0): Promise<T> {
    const answer = this.#answer<T>(PATIENCE_MS + extraMs);
    this.#child.send(question);
    return answer;
  }

  #answer<T extends Answer>(timeoutMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void) => {
        clearTimeout(timer);
        this.#child.off('message', answered);
        this.#child.off('exit', ended);
        how();
      };
      const answered = (answer: Answer) =>
        settle(() => ('failed' in answer ? reject(new Error(answer.failed)) : resolve(answer as T)));
      const ended = () => settle(() => reject(new Error('a process of the benchmark ended early')));
      const timer = setTimeout(() => settle(() => reject(new Error('a process did not answer'))), timeoutMs);
      this.#child.once('message', answered);
      this.#child.once('exit', ended);
    });
  }
}
