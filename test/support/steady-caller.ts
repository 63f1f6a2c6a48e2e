import assert from 'node:assert/strict';

/** Somebody who goes on calling while others attack, and remembers how it went. */
export interface SteadyCaller {
  /** Ends it; says how many calls it made, which of them failed and how long the slow ones took. */
  stop(): Promise<CallerReport>;
}

export interface CallerReport {
  readonly calls: number;
  readonly failures: readonly unknown[];
  readonly p99Ms: number;
}

/** Calls one after the other, with `pauseMs` (default 2) in between. */
export function steadyCaller(call: () => Promise<unknown>, pauseMs = 2): SteadyCaller {
  const latencies: number[] = [];
  const failures: unknown[] = [];
  let running = true;
  const work = (async () => {
    while (running) {
      const began = performance.now();
      try {
        await call();
      } catch (error) {
        failures.push(error);
      }
      latencies.push(performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  })();
  return {
    async stop() {
      running = false;
      await work;
      latencies.sort((a, b) => a - b);
      const p99Ms = latencies[Math.ceil(latencies.length * 0.99) - 1] ?? 0;
      return { calls: latencies.length, failures, p99Ms };
    },
  };
}

/**
 * Attacks while somebody goes on calling: not one of those calls may fail. Prints how long the slow ones took; a run on a
 * busy machine may be slow, but calls that wait for the attack to end are not served beside it.
 */
export async function whileCalling<T>(call: () => Promise<unknown>, attack: () => Promise<T>): Promise<T> {
  const caller = steadyCaller(call);
  let report: CallerReport;
  let result: T;
  try {
    result = await attack();
  } finally {
    report = await caller.stop();
  }
  console.log(`        good caller: ${report.calls} calls, p99 ${report.p99Ms.toFixed(1)} ms`);
  assert.deepEqual(report.failures, []);
  assert.ok(report.calls > 0);
  assert.ok(report.p99Ms < 1000, `p99 was ${report.p99Ms} ms`);
  return result;
}
