import assert from 'node:assert/strict';
import { type Random, randomFrom, seedOf } from './random.js';

export interface CommandTest<T> {
  readonly seed: number;
  readonly runs: number;
  /** How many commands one run has. */
  readonly length: number;
  readonly command: (random: Random) => T;
  /** Runs commands against the product and a model of it. Rejects where they differ. */
  readonly run: (commands: readonly T[]) => Promise<void>;
}

/** Runs random commands; the first run that fails is made small before it is told. */
export async function checkCommands<T>({ seed, runs, length, command, run }: CommandTest<T>): Promise<void> {
  for (let number = 0; number < runs; number++) {
    const random = randomFrom(seedOf(seed, number));
    const commands = Array.from({ length: 1 + random.below(length) }, () => command(random));
    const error = await errorOf(run, commands);
    if (error === undefined) continue;
    const small = await shrink(commands, async (fewer) => (await errorOf(run, fewer)) !== undefined);
    const smallError = (await errorOf(run, small)) ?? error;
    assert.fail(`seed ${seed}, run ${number}: ${smallError}\n${small.map((one) => JSON.stringify(one)).join('\n')}`);
  }
}

/** Leaves out halves, quarters and so on, as long as the rest still fails. */
async function shrink<T>(
  commands: readonly T[],
  fails: (fewer: readonly T[]) => Promise<boolean>,
): Promise<readonly T[]> {
  let left = commands;
  for (let size = left.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at + size <= left.length; ) {
      const fewer = [...left.slice(0, at), ...left.slice(at + size)];
      if (await fails(fewer)) left = fewer;
      else at += size;
    }
  }
  return left;
}

async function errorOf<T>(
  run: (commands: readonly T[]) => Promise<void>,
  commands: readonly T[],
): Promise<string | undefined> {
  try {
    await run(commands);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
