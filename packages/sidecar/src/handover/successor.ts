import { type ChildProcess, spawn } from 'node:child_process';
import { CallError } from '@sallyport/core';
import { PREDECESSOR, SERVING } from './handed-sockets.js';
import type { ListeningSockets } from './listening-sockets.js';

export interface SuccessorOptions {
  /** Program and arguments of the next process. Default: those of this one, in whatever version is installed there by now. */
  readonly command?: readonly [string, ...string[]];
  /** Time for it to serve, ms. Default 30,000. */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Starts the next process with the listening sockets of this one. Resolves with its id once it serves. Rejects with CallError
 * UNAVAILABLE when it ends before, or is not there in time; it is killed then, and nothing has changed.
 */
export async function startSuccessor(sockets: ListeningSockets, options: SuccessorOptions = {}): Promise<number> {
  const [program, ...args] = options.command ?? [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const handed = sockets.open;
  const child = spawn(program, args, {
    // It lives on when this process ends.
    detached: true,
    stdio: ['inherit', 'inherit', 'inherit', ...handed.map(({ descriptor }) => descriptor), 'ipc'],
    env: {
      ...process.env,
      LISTEN_FDS: String(handed.length),
      LISTEN_FDNAMES: handed.map(({ name }) => name).join(':'),
      [PREDECESSOR]: String(process.pid),
    },
  });
  try {
    await serves(child, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    if (child.connected) child.disconnect();
    child.unref();
  }
  return child.pid ?? 0;
}

function serves(child: ChildProcess, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (why: string) => reject(new CallError('UNAVAILABLE', `the successor ${why}`));
    const timer = setTimeout(() => fail(`did not serve within ${timeoutMs} ms`), timeoutMs);
    timer.unref();
    child.once('error', (error) => fail(`could not be started: ${(error as NodeJS.ErrnoException).code}`));
    child.once('exit', (code, signal) => fail(`ended before it served: ${signal ?? `exit code ${code}`}`));
    child.once('message', (message) => {
      if (message === SERVING) resolve();
      else fail('spoke of something else');
    });
    child.once('close', () => clearTimeout(timer));
  });
}
