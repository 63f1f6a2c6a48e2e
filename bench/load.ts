import { type Connected, checkBlob, checkReceipt, orderOf } from './peer.js';
import { quantile } from './statistics.js';

/** What a client does for a measurement. */
export type Load =
  | { readonly kind: 'unary'; readonly concurrency: number; readonly durationMs: number }
  | { readonly kind: 'receipts'; readonly durationMs: number }
  | { readonly kind: 'blobs'; readonly bytes: number; readonly durationMs: number }
  | { readonly kind: 'hold'; readonly connections: number };

export interface LoadResult {
  /** Calls, messages or connections. */
  readonly count: number;
  readonly seconds: number;
  /** Of a call; of unary calls only. */
  readonly p50Ms?: number;
  readonly p99Ms?: number;
}

/** Messages of one stream: enough that its begin and end cost next to nothing. */
const RECEIPTS_A_STREAM = 2000;
const BLOBS_A_STREAM_MAX = 10_000;
const BLOB_BYTES_A_STREAM = 16 * 1024 * 1024;

/** Works as fast as the answers come, and checks every one of them. Rejects with the first failure. */
export async function runLoad(connected: Connected, load: Load): Promise<LoadResult> {
  switch (load.kind) {
    case 'unary':
      return await callFor(connected, load.concurrency, load.durationMs);
    case 'receipts':
      return await streamFor(load.durationMs, async () => {
        let received = 0;
        await connected.receipts?.(RECEIPTS_A_STREAM, (receipt) => checkReceipt(orderOf(received++), receipt));
        return expectAll(received, RECEIPTS_A_STREAM);
      });
    case 'blobs':
      return await streamFor(load.durationMs, async () => {
        let received = 0;
        const { bytes } = load;
        const count = Math.min(BLOBS_A_STREAM_MAX, Math.floor(BLOB_BYTES_A_STREAM / bytes));
        await connected.blobs?.({ count, bytes }, (blob) => checkBlob(received++, bytes, blob));
        return expectAll(received, count);
      });
    case 'hold': {
      const startedAt = performance.now();
      await connected.hold?.(load.connections);
      return { count: load.connections, seconds: (performance.now() - startedAt) / 1000 };
    }
  }
}

async function callFor(connected: Connected, concurrency: number, durationMs: number): Promise<LoadResult> {
  const latenciesMs: number[] = [];
  const startedAt = performance.now();
  const endsAt = startedAt + durationMs;
  let number = 0;

  async function caller(): Promise<void> {
    for (let sentAt = performance.now(); sentAt < endsAt; ) {
      const order = orderOf(number++);
      checkReceipt(order, await connected.call(order));
      const now = performance.now();
      latenciesMs.push(now - sentAt);
      sentAt = now;
    }
  }

  await Promise.all(Array.from({ length: concurrency }, caller));
  const seconds = (performance.now() - startedAt) / 1000;
  const sorted = Float64Array.from(latenciesMs).sort();
  return { count: sorted.length, seconds, p50Ms: quantile(sorted, 0.5), p99Ms: quantile(sorted, 0.99) };
}

/** One stream after the other. */
async function streamFor(durationMs: number, stream: () => Promise<number>): Promise<LoadResult> {
  const startedAt = performance.now();
  let count = 0;
  do count += await stream();
  while (performance.now() - startedAt < durationMs);
  return { count, seconds: (performance.now() - startedAt) / 1000 };
}

function expectAll(received: number, expected: number): number {
  if (received !== expected) throw new Error(`${received} messages of ${expected} came`);
  return received;
}
