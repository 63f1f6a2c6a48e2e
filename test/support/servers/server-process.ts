import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ServerProgram, serverEnvironment } from './programs.js';

export interface ServerProcessOptions {
  readonly program: ServerProgram;
  readonly args: readonly string[];
  /** Holds the log and, in `data`, what the server keeps. */
  readonly folder: string;
  /** Removed if this process ends without having stopped the server. */
  readonly temporary: string;
  /** Asked again until it is true; a rejection is as good as false. */
  readonly ready: () => Promise<boolean>;
  /** Who it runs as. Default: who we are. */
  readonly user?: { readonly uid: number; readonly gid: number };
}

const STARTUP_MS = 20_000;
const ASK_AGAIN_MS = 25;
const PORT_RELEASE_MS = 150;

/** One server, which can die and come back. It does not keep this process alive, and it does not outlive it. */
export class ServerProcess {
  readonly #options: ServerProcessOptions;
  #child: ChildProcess | undefined;

  constructor(options: ServerProcessOptions) {
    this.#options = options;
    mkdirSync(this.#data, { recursive: true, mode: 0o700 });
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** Resolves when the server is ready. Rejects, with the end of its log, if it ends or 20 s pass before. */
  async start(): Promise<void> {
    if (!this.running) this.#spawn();
    const giveUpAt = Date.now() + STARTUP_MS;
    while (!(await this.#isReady())) {
      if (!this.running) await this.#spawnAgain();
      else if (Date.now() < giveUpAt) await sleep(ASK_AGAIN_MS);
      else throw new Error(`${this.#options.program} is not ready after ${STARTUP_MS} ms:\n${this.#endOfLog()}`);
    }
  }

  /** SIGKILL: as if the machine lost its power. Resolves when the process is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const exited = once(child, 'exit');
    child.ref(); // or this process might end while it waits
    child.kill('SIGKILL');
    await exited;
  }

  /** Forgets everything that the server stored. For a server that does not run. */
  wipe(): void {
    rmSync(this.#data, { recursive: true, force: true });
    mkdirSync(this.#data, { mode: 0o700 });
  }

  get #data(): string {
    return join(this.#options.folder, 'data');
  }

  get #log(): string {
    return join(this.#options.folder, 'log');
  }

  async #isReady(): Promise<boolean> {
    if (!this.running) return false;
    try {
      return (await this.#options.ready()) && this.running;
    } catch {
      return false;
    }
  }

  /** The kernel may hold the port of a killed server for a moment; any other early end is final. */
  async #spawnAgain(): Promise<void> {
    const log = this.#endOfLog();
    if (!/address already in use/.test(log)) throw new Error(`${this.#options.program} ended:\n${log}`);
    await sleep(PORT_RELEASE_MS);
    this.#spawn();
  }

  #spawn(): void {
    const { program, args, folder, temporary, user } = this.#options;
    const log = openSync(this.#log, 'w', 0o600);
    const child = spawn(program, args, { ...user, cwd: folder, env: serverEnvironment, stdio: ['ignore', log, log] });
    closeSync(log);
    child.once('error', () => {}); // told by the missing pid already
    if (child.pid === undefined) throw new Error(`${program} is not on this machine`);
    const release = endWithThisProcess(child.pid, temporary);
    child.once('exit', () => {
      this.#child = undefined;
      release();
    });
    child.unref();
    this.#child = child;
  }

  #endOfLog(): string {
    try {
      return readFileSync(this.#log, 'utf8').slice(-4000);
    } catch {
      return '';
    }
  }
}

/**
 * Kills the server and removes the temporary folder when this process ends in whatever way, SIGKILL included: a shell waits for
 * the end of a pipe whose other end only we hold. It is detached, so that a Ctrl-C does not end it before its work is done.
 */
function endWithThisProcess(serverPid: number, temporary: string): () => void {
  const script = 'read -r _; kill -9 "$1"; sleep 0.1; rm -rf "$2"';
  const reaper = spawn('sh', ['-c', script, 'reaper', String(serverPid), temporary], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  reaper.unref();
  return () => reaper.kill('SIGKILL');
}
