import { type Connected, check, orderOf } from './peer.js';
import { quantile } from './statistics.js';

export interface LoadOptions {
  /** Calls in flight at any time. */
  readonly concurrency: number;
  readonly durationMs: number;
}

export interface LoadResult {
  readonly calls: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Calls as fast as the answers come, and checks every one of them. Rejects with the first failure. */
export async function runLoad(connected: Connected, { concurrency, durationMs }: LoadOptions): Promise<LoadResult> {
  const latenciesMs: number[] = [];
  const startedAt = performance.now();
  const endsAt = startedAt + durationMs;
  let number = 0;

  async function caller(): Promise<void> {
    for (let sentAt = performance.now(); sentAt < endsAt; ) {
      const order = orderOf(number++);
      check(order, await connected.call(order));
      const now = performance.now();
      latenciesMs.push(now - sentAt);
      sentAt = now;
    }
  }

  await Promise.all(Array.from({ length: concurrency }, caller));
  const seconds = (performance.now() - startedAt) / 1000;
  const sorted = Float64Array.from(latenciesMs).sort();
  return { calls: sorted.length, seconds, p50Ms: quantile(sorted, 0.5), p99Ms: quantile(sorted, 0.99) };
}
