import type { Violation } from './violation.js';

const order = { critical: 0, high: 1, medium: 2 } as const;

/** The configuration was refused: nothing was bound, registered or sent. Carries every violation, the gravest first. */
export class InsecureConfigurationError extends Error {
  override readonly name = 'InsecureConfigurationError';
  readonly code = 'SALLYPORT_INSECURE_CONFIGURATION';
  readonly violations: readonly Violation[];

  constructor(subject: string, violations: readonly Violation[]) {
    const sorted = [...violations].sort((a, b) => order[a.severity] - order[b.severity]);
    super(`${subject} refused to start, ${count(sorted.length)}\n${sorted.map(describe).join('\n')}`);
    this.violations = Object.freeze(sorted);
  }
}

function count(n: number): string {
  return n === 1 ? '1 violation:' : `${n} violations:`;
}

function describe(v: Violation): string {
  return `  [${v.severity}] ${v.id} at ${v.path}: ${v.problem}\n      fix: ${v.fix}\n      see: docs/${v.docs}`;
}
