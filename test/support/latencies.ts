import { setTimeout as sleep } from 'node:timers/promises';

/** How long each call took, ms: one after the other, with a short pause, for as long as is said. */
export async function latencies(call: () => Promise<unknown>, forMs: number): Promise<number[]> {
  const taken: number[] = [];
  const end = performance.now() + forMs;
  while (performance.now() < end) {
    const from = performance.now();
    await call();
    taken.push(performance.now() - from);
    await sleep(5);
  }
  return taken;
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
