import type { Candidate, RandomSource } from './selector.js';

/** Draws a candidate with a chance in proportion to its weight; `except` is not drawn. */
export function draw<C extends Candidate>(candidates: readonly C[], random: RandomSource, except?: C): C | undefined {
  let total = 0;
  for (const candidate of candidates) if (candidate !== except) total += candidate.instance.weight;
  let left = random() * total;
  for (const candidate of candidates) {
    if (candidate === except) continue;
    left -= candidate.instance.weight;
    if (left < 0) return candidate;
  }
  return undefined;
}
