import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { InstanceRecord } from '@sallyport/core';
import { randomNumbers } from './random.js';

export const CHAOS_ROUNDS = Number(process.env.SALLYPORT_CHAOS_ROUNDS ?? 20);
const SEED = Number(process.env.SALLYPORT_CHAOS_SEED ?? randomInt(2 ** 32 - 1));

/** Instances of one service, each with an owner of its own, and somebody who looks for them. */
export interface ChaoticFleet {
  readonly owners: readonly unknown[];
  has(index: number): boolean;
  come(index: number): Promise<void>;
  leave(index: number): Promise<void>;
  change(index: number, fields: Partial<InstanceRecord>): Promise<void>;
  insist(index: number): Promise<void>;
  complete(): Promise<number>;
}

/** What can happen to a registry. Resolves with what heals it. */
export type Fault<Scene> = (scene: Scene) => Promise<() => Promise<void>>;

/**
 * Round after round: something happens to the registry while its owners come, go and change, then it is healed, and the
 * fleet must become complete: none wrong, none missing. What happens follows from the seed, which is printed.
 */
export async function surviveChaos<Scene extends { readonly fleet: ChaoticFleet }>(
  scene: Scene,
  faults: Readonly<Record<string, Fault<Scene>>>,
): Promise<void> {
  console.log(`      chaos: SALLYPORT_CHAOS_SEED=${SEED}`);
  const random = randomNumbers(SEED);
  const { fleet } = scene;
  const names = Object.keys(faults);
  const recoveries: number[] = [];
  for (let round = 1; round <= CHAOS_ROUNDS; round++) {
    const name = names[random(names.length)] ?? '';
    const heal = await faults[name]?.(scene);
    const work = Promise.allSettled(fleet.owners.map((_, index) => act(fleet, index, random(4), round)));
    await sleep(random(1000));
    await heal?.();
    const healedAt = performance.now();
    await work;
    try {
      // An owner whose work failed does it again, as a service would.
      await Promise.all(fleet.owners.map((_, index) => fleet.insist(index)));
      await fleet.complete();
      recoveries.push(performance.now() - healedAt);
    } catch (error) {
      assert.fail(`round ${round} (${name}), seed ${SEED}: ${error}`);
    }
  }
  console.log(`      ${CHAOS_ROUNDS} rounds, 0 wrong or missing; complete after ${medianAndWorst(recoveries)}`);
}

/** Whatever becomes of it: the round ends with every instance as its owner wants it. */
async function act(fleet: ChaoticFleet, index: number, what: number, round: number): Promise<void> {
  if (what === 0) return;
  if (!fleet.has(index)) await fleet.come(index);
  else if (what === 1) await fleet.leave(index);
  else await fleet.change(index, { metadata: { round: String(round) } });
}

function medianAndWorst(times: readonly number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const [median, worst] = [sorted[Math.floor(sorted.length / 2)] ?? 0, sorted.at(-1) ?? 0];
  return `${median.toFixed(0)} ms (median), ${worst.toFixed(0)} ms (worst)`;
}
