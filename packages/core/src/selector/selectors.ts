import { byVersion, byZone } from './filters.js';
import { leastPending } from './least-pending.js';
import { random } from './random.js';
import { roundRobin } from './round-robin.js';

/** Who gets the call: strategies (`roundRobin`, `random`, `leastPending`) and filters (`byVersion`, `byZone`). */
export const selector = { roundRobin, random, leastPending, byVersion, byZone } as const;
