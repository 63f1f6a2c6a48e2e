import type { Candidate, RandomSource, Selector } from './selector.js';
import { draw } from './weighted-draw.js';

/**
 * Draws two candidates and takes the one with fewer calls under way for its weight. Nearly as even as asking all of
 * them, without the herd that runs to the one that was idle last (Mitzenmacher, "The Power of Two Choices").
 */
export function leastPending(random: RandomSource = Math.random): Selector {
  return {
    name: 'leastPending',
    pick(candidates) {
      const first = draw(candidates, random);
      const second = draw(candidates, random, first);
      return first && second && load(second) < load(first) ? second : first;
    },
  };
}

function load({ pending, instance }: Candidate): number {
  return pending / instance.weight;
}
