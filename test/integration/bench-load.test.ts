import assert from 'node:assert/strict';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../support/repository.js';

describe('the load of the benchmark', () => {
  let runLoad: (connected: object, load: object) => Promise<{ readonly count: number; readonly p99Ms?: number }>;
  let receiptOf: (order: object) => { cents: number };
  let orderOf: (number: number) => object;
  let blobOf: (number: number, bytes: number) => Uint8Array;

  before(async () => {
    const module = (name: string) => import(pathToFileURL(join(root, 'bench', 'dist', name)).href);
    ({ runLoad } = await module('load.js'));
    ({ receiptOf, orderOf, blobOf } = await module('peer.js'));
  });

  const unary = { kind: 'unary', concurrency: 4, durationMs: 5 };
  const receipts = { kind: 'receipts', durationMs: 1 };
  const blobs = { kind: 'blobs', bytes: 65_536, durationMs: 1 };

  it('keeps as many calls in flight as it is told to', async () => {
    let inFlight = 0;
    let most = 0;
    const call = async (order: object) => {
      most = Math.max(most, ++inFlight);
      await new Promise((resolve) => setImmediate(resolve));
      inFlight--;
      return receiptOf(order);
    };

    const { count, p99Ms } = await runLoad({ call }, unary);

    assert.equal(most, 4);
    assert.ok(count >= 4 && (p99Ms ?? 0) > 0);
  });

  it('refuses a wrong answer', async () => {
    const wrong = async (order: object) => ({ ...receiptOf(order), cents: 1 });
    await assert.rejects(runLoad({ call: wrong }, unary), /the answer to order-\d is wrong/);
  });

  it('refuses the answer to another order', async () => {
    const other = async () => receiptOf(orderOf(-1));
    await assert.rejects(runLoad({ call: other }, unary), /the answer to order-\d is wrong/);
  });

  it('counts the messages of streams', async () => {
    const whole = async (count: number, received: (message: object) => void) => {
      for (let number = 0; number < count; number++) received(receiptOf(orderOf(number)));
    };
    const { count } = await runLoad({ receipts: whole }, receipts);
    assert.ok(count > 0 && count % 2000 === 0);
  });

  it('refuses a stream that lacks a message', async () => {
    const short = async ({ count, bytes }: Wanted, received: (message: Uint8Array) => void) => {
      for (let number = 0; number < count - 1; number++) received(blobOf(number, bytes));
    };
    await assert.rejects(runLoad({ blobs: short }, blobs), /255 messages of 256 came/);
  });

  it('refuses a stream whose messages change places', async () => {
    const swapped = async ({ bytes }: Wanted, received: (message: Uint8Array) => void) => received(blobOf(1, bytes));
    await assert.rejects(runLoad({ blobs: swapped }, blobs), /blob 0 is wrong/);
  });
});

interface Wanted {
  readonly count: number;
  readonly bytes: number;
}
