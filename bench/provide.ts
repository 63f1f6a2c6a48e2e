import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Subject } from './line.js';
import type { PeerEntry } from './peers.js';

export interface Provided {
  readonly subjects: readonly Subject[];
  readonly absent: readonly Absent[];
}

/** A peer that cannot be measured here, and why. */
export interface Absent {
  readonly peer: string;
  readonly reason: string;
  /** What the program said that failed to fetch it: for this terminal only, it may name folders and addresses. */
  readonly output: string;
}

/** What runs a peer that needs a newer Node than the one of the harness. */
const NEWER_NODE = '24';

/**
 * Fetches what the peers need and this machine lacks: packages of others, another Node. A peer for which that fails is left
 * out, by name.
 */
export async function provide(
  entries: readonly Pick<PeerEntry, 'name' | 'foreign' | 'minNode' | 'command' | 'versionFlag'>[],
  nodeVersion: string | undefined,
  processes: Pick<Subject, 'program' | 'roles'>,
): Promise<Provided> {
  const fetched = new Map<string, Promise<string>>();
  const once = (what: string, fetch: () => Promise<string>) => {
    const running = fetched.get(what) ?? fetch();
    fetched.set(what, running);
    return running;
  };
  const packages = () => runScript('its packages could not be installed', 'bench-foreign.mjs');
  const nodeOf = (version: string) =>
    runScript(`Node ${version} could not be fetched`, 'test-matrix.mjs', '--print', version);

  const subjects: Subject[] = [];
  const absent: Absent[] = [];
  for (const { name, foreign, minNode = 0, command, versionFlag = '-v' } of entries) {
    try {
      if (command !== undefined) await requireCommand(command, versionFlag);
      if (foreign) await once('packages', packages);
      const version = nodeVersion ?? (minNode > ownMajor() ? NEWER_NODE : undefined);
      const node = version === undefined ? undefined : await once(version, () => nodeOf(version));
      subjects.push({ name, ...processes, node });
    } catch (error) {
      if (!(error instanceof NotFetched)) throw error;
      absent.push({ peer: name, reason: error.message, output: error.output });
    }
  }
  return { subjects, absent };
}

class NotFetched extends Error {
  readonly output: string;

  constructor(message: string, output: string) {
    super(message);
    this.output = output;
  }
}

function ownMajor(): number {
  return Number(process.versions.node.split('.')[0]);
}

async function requireCommand(command: string, versionFlag: string): Promise<void> {
  try {
    await promisify(execFile)(command, [versionFlag], { timeout: 10_000 });
  } catch (error) {
    throw new NotFetched(`there is no ${command} on this machine`, String(error));
  }
}

/** Resolves with what it printed, rejects with NotFetched. */
async function runScript(failure: string, script: string, ...args: readonly string[]): Promise<string> {
  const path = fileURLToPath(new URL(`../../scripts/${script}`, import.meta.url));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [path, ...args], { timeout: 180_000 });
    return stdout.trim();
  } catch (error) {
    throw new NotFetched(failure, String((error as { stderr?: unknown }).stderr ?? error).trim());
  }
}
