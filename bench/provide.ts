import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Subject } from './line.js';
import type { PeerEntry } from './peers.js';

export interface Provided {
  readonly subjects: readonly Subject[];
  /** Peers that cannot be measured here, and why. */
  readonly absent: readonly { readonly peer: string; readonly reason: string }[];
}

/** What runs a peer that needs a newer Node than the one of the harness. */
const NEWER_NODE = '24';

/**
 * Fetches what the peers need and this machine lacks: packages of others, another Node. A peer for which that fails is left
 * out, by name.
 */
export async function provide(entries: readonly PeerEntry[], nodeVersion: string | undefined): Promise<Provided> {
  const fetched = new Map<string, Promise<string>>();
  const once = (script: string, ...args: string[]) => {
    const key = [script, ...args].join(' ');
    const running = fetched.get(key) ?? runScript(script, args);
    fetched.set(key, running);
    return running;
  };

  const subjects: Subject[] = [];
  const absent: { peer: string; reason: string }[] = [];
  for (const { name, foreign, minNode = 0 } of entries) {
    try {
      if (foreign) await once('bench-foreign.mjs');
      const version = nodeVersion ?? (minNode > ownMajor() ? NEWER_NODE : undefined);
      const node = version === undefined ? undefined : await once('test-matrix.mjs', '--print', version);
      const program = new URL('rpc-process.js', import.meta.url);
      subjects.push({ name, program, roles: ['orders', 'web'], node });
    } catch (error) {
      absent.push({ peer: name, reason: error instanceof Error ? error.message : 'unknown' });
    }
  }
  return { subjects, absent };
}

function ownMajor(): number {
  return Number(process.versions.node.split('.')[0]);
}

/** Resolves with what it printed. */
async function runScript(script: string, args: readonly string[]): Promise<string> {
  const path = fileURLToPath(new URL(`../../scripts/${script}`, import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [path, ...args], { timeout: 180_000 });
  return stdout.trim();
}
