import type { RandomSource, Selector } from './selector.js';
import { draw } from './weighted-draw.js';

/** Each call goes to a candidate at random, in proportion to the weights. */
export function random(source: RandomSource = Math.random): Selector {
  return { name: 'random', pick: (candidates) => draw(candidates, source) };
}
