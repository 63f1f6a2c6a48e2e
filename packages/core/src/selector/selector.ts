import type { InstanceRecord } from '../registry/registry.js';

/** An instance that a call may go to. The object stays the same for as long as the caller knows the instance. */
export interface Candidate {
  readonly instance: InstanceRecord;
  /** Calls under way; the caller counts. */
  readonly pending: number;
}

/**
 * Chooses among candidates for one call. Shares are relative to the weights of those that are offered; weight 0 takes
 * none. Runs on every call: it allocates nothing and never waits.
 */
export interface Selector {
  /** For messages and metrics: `roundRobin`, `random`, `leastPending`. */
  readonly name: string;
  /** Undefined when no candidate takes calls. */
  pick<C extends Candidate>(candidates: readonly C[]): C | undefined;
}

/** A source of numbers from 0 (included) to 1 (excluded). */
export type RandomSource = () => number;
