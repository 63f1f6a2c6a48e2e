import { setTimeout as passes } from 'node:timers/promises';
import { CallError } from '@sallyport/core';
import { PidFile } from './pid-file.js';

export interface UpdateOptions {
  /** The file that the running sidecar was given. */
  readonly pidFile: string;
  /** How long to wait for the next process, ms. Default 40,000: longer than a successor has. */
  readonly timeoutMs?: number;
}

export interface Update {
  /** Process ids. */
  readonly from: number;
  readonly to: number;
}

const LOOK_AGAIN_MS = 50;
const DEFAULT_TIMEOUT_MS = 40_000;

/**
 * Replaces a running sidecar by what is installed now, without turning anybody away (SIGUSR2). Resolves when the next process serves.
 * Rejects with UsageError when no sidecar runs, and with CallError when the next one does not come to serve: the old one goes on.
 */
export async function updateSidecar({ pidFile, timeoutMs = DEFAULT_TIMEOUT_MS }: UpdateOptions): Promise<Update> {
  const file = new PidFile(pidFile);
  const { pid: from, problem: before } = file.serving();
  const deadlineAt = Date.now() + timeoutMs;
  process.kill(from, 'SIGUSR2');
  while (Date.now() < deadlineAt) {
    await passes(LOOK_AGAIN_MS);
    // The old one may have ended before the next one has written its id.
    const { pid: to, problem } = file.read();
    if (to !== from) return { from, to };
    if (problem !== undefined && problem !== before)
      throw new CallError('ABORTED', `process ${from} goes on: ${problem}`);
  }
  throw new CallError('DEADLINE_EXCEEDED', `process ${from} has not been replaced within ${timeoutMs} ms`);
}
