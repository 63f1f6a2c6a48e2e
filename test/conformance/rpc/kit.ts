import assert from 'node:assert/strict';
import { CallError, type StatusName } from 'sallyport';

/** Everything an iterable yields, as a list. */
export async function all<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of iterable) items.push(item);
  return items;
}

/** The CallError with which a call ends; fails when it succeeds or ends with another status. */
export async function failure(call: Promise<unknown>, status: StatusName): Promise<CallError> {
  const error = await call.then(
    () => assert.fail(`the call succeeded, expected ${status}`),
    (reason: unknown) => reason,
  );
  if (!(error instanceof CallError)) throw error;
  assert.equal(error.status, status, error.message);
  return error;
}

/** A promise with its ends in the open: what one side of a test tells the other. */
export interface Signal<T = void> extends Promise<T> {
  readonly give: (value: T) => void;
}

export function signal<T = void>(): Signal<T> {
  let give: (value: T) => void = () => {};
  const promise = new Promise<T>((resolve) => {
    give = resolve;
  });
  return Object.assign(promise, { give });
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resolves when the call is cancelled. */
export function aborted(abort: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (abort.aborted) resolve();
    else abort.addEventListener('abort', () => resolve(), { once: true });
  });
}
