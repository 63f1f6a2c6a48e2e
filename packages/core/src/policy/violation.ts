import { catalogue, type ViolationId } from './catalogue.js';

export type Severity = 'critical' | 'high' | 'medium';

/** One reason not to start. */
export interface Violation {
  /** Stable: tests, dashboards and the docs refer to it. */
  readonly id: ViolationId;
  readonly severity: Severity;
  /** Where it stands, e.g. `server.requireClientCert`, or the environment variable or flag. */
  readonly path: string;
  /** What is wrong with the value that was found. Never holds the value of a secret. */
  readonly problem: string;
  /** How to mend it. */
  readonly fix: string;
  /** Page and anchor in the documentation, relative to `docs/`. */
  readonly docs: string;
}

/** Makes a violation from the catalogue. `problem` replaces the general sentence by one about the value at hand. */
export function violation(id: ViolationId, path: string, problem?: string, fix?: string): Violation {
  const entry = catalogue[id];
  return {
    id,
    severity: entry.severity,
    path,
    problem: problem ?? entry.problem,
    fix: fix ?? entry.fix,
    docs: `violations.md#${id}`,
  };
}

/** Each reason once: parts may share something that is wrong, such as the certificate of a service and its registry. */
export function distinct(violations: readonly Violation[]): Violation[] {
  const reasons = new Map(violations.map((found) => [JSON.stringify([found.id, found.path, found.problem]), found]));
  return [...reasons.values()];
}
