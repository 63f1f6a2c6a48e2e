import type { Candidate, RandomSource, Selector } from './selector.js';

/**
 * Takes turns, spread evenly when weights differ (the smooth weighted round robin of nginx): every candidate earns its
 * weight with each call, the richest gets the call and pays for all. The start is random, so that many callers that
 * begin together do not all begin with the same instance.
 */
export function roundRobin(random: RandomSource = Math.random): Selector {
  const purses = new WeakMap<Candidate, { credit: number }>();

  function purseOf(candidate: Candidate): { credit: number } {
    let purse = purses.get(candidate);
    if (purse === undefined) {
      purse = { credit: random() * candidate.instance.weight };
      purses.set(candidate, purse);
    }
    return purse;
  }

  return {
    name: 'roundRobin',
    pick<C extends Candidate>(candidates: readonly C[]): C | undefined {
      let total = 0;
      let best: C | undefined;
      let bestPurse: { credit: number } | undefined;
      for (const candidate of candidates) {
        const { weight } = candidate.instance;
        if (weight === 0) continue;
        const purse = purseOf(candidate);
        purse.credit += weight;
        total += weight;
        if (bestPurse === undefined || purse.credit > bestPurse.credit) {
          best = candidate;
          bestPurse = purse;
        }
      }
      if (bestPurse) bestPurse.credit -= total;
      return best;
    },
  };
}
