import { setTimeout as sleep } from 'node:timers/promises';
import { type LoadResult, runLoad } from './load.js';
import { type Connected, checkReceipt, orderOf } from './peer.js';
import { quantile } from './statistics.js';

/** Of the clients of one gateway. */
export const CONNECTIONS = 32;

export type GatewayLoad =
  /** Each connection asks again when it has its answer. */
  | { readonly kind: 'busy'; readonly durationMs: number }
  /** So many requests a second, whether or not those before are answered. */
  | { readonly kind: 'paced'; readonly perSecond: number; readonly durationMs: number };

/** Checks every answer. Rejects with the first failure. */
export async function runGatewayLoad(connected: Connected, load: GatewayLoad): Promise<LoadResult> {
  const { durationMs } = load;
  if (load.kind === 'paced') return await callAtPace(connected, load.perSecond, durationMs);
  return await runLoad(connected, { kind: 'unary', concurrency: CONNECTIONS, durationMs });
}

/** A request is as old as it is due: one that waits because the ones before it are late has waited. */
async function callAtPace(connected: Connected, perSecond: number, durationMs: number): Promise<LoadResult> {
  const latenciesMs: number[] = [];
  const calls: Promise<void>[] = [];
  const startedAt = performance.now();

  async function call(number: number, dueAt: number): Promise<void> {
    const order = orderOf(number);
    checkReceipt(order, await connected.call(order));
    latenciesMs.push(performance.now() - dueAt);
  }

  while (calls.length < (perSecond * durationMs) / 1000) {
    const dueAt = startedAt + (calls.length * 1000) / perSecond;
    if (dueAt > performance.now()) {
      await sleep(1);
      continue;
    }
    const calling = call(calls.length, dueAt);
    calling.catch(() => {}); // told below
    calls.push(calling);
  }
  await Promise.all(calls);
  const seconds = (performance.now() - startedAt) / 1000;
  const sorted = Float64Array.from(latenciesMs).sort();
  return { count: sorted.length, seconds, p50Ms: quantile(sorted, 0.5), p99Ms: quantile(sorted, 0.99) };
}
