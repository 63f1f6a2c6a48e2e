import { randomNumbers } from './random.js';

export interface MutationOptions {
  readonly count: number;
  /** The same seed gives the same mutations; printed, so that a failure can be repeated. */
  readonly seed: number;
}

/** Damaged copies of `original`: flipped, replaced, inserted, removed and doubled octets, one to four at a time. */
export function* mutations(original: Uint8Array, { count, seed }: MutationOptions): Generator<Uint8Array> {
  console.log(`      mutations: seed 0x${seed.toString(16)}, ${count} times`);
  const random = randomNumbers(seed);
  for (let i = 0; i < count; i++) {
    let bytes: Buffer = Buffer.from(original);
    for (let times = 1 + random(4); times > 0; times--) bytes = mutated(bytes, random);
    yield bytes;
  }
}

function mutated(bytes: Buffer, random: (below: number) => number): Buffer {
  const at = random(bytes.length);
  const before = bytes.subarray(0, at);
  switch (random(5)) {
    case 0:
      return Buffer.concat([before, Buffer.of((bytes[at] ?? 0) ^ (1 << random(8))), bytes.subarray(at + 1)]);
    case 1:
      return Buffer.concat([before, Buffer.of(random(256)), bytes.subarray(at + 1)]);
    case 2:
      return Buffer.concat([before, Buffer.of(random(256)), bytes.subarray(at)]);
    case 3:
      return Buffer.concat([before, bytes.subarray(at + 1 + random(8))]);
    default:
      return Buffer.concat([before, bytes.subarray(at, at + random(16)), bytes.subarray(at)]);
  }
}
