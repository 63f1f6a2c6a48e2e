import type { Clock } from '../clock.js';
import type { EventSink } from '../events/events.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { type Violation, violation } from '../policy/violation.js';
import { type ParsedRule, parseRules } from './rules.js';

export interface RuleContext {
  readonly events: EventSink;
  readonly clock: Clock;
}

/** The open source: holds the current rules and follows them. */
export interface RuleHandle {
  current(): readonly ParsedRule[];
  /** Called after each change with the new rules; must not throw. Returns the function that unsubscribes. */
  onChange(listener: (rules: readonly ParsedRule[]) => void): () => void;
  /** Releases watchers and timers; no listener is called after it; twice is harmless. */
  close(): void;
}

/** Where rules come from. */
export interface RuleSource {
  readonly kind: string;
  /** Everything that is wrong with the options or the rules; empty when `open` will succeed. Keeps nothing open. */
  check(): Promise<readonly Violation[]>;
  /** Throws InsecureConfigurationError where `check` finds violations. */
  open(context: RuleContext): Promise<RuleHandle>;
}

/**
 * Takes what a user gave for rules: a source as it is, a list of rules or a rule document as a source that never changes.
 * `path` is the option, e.g. `authorize`. Never throws; the source's `check()` tells what is wrong, `authorization-missing`
 * when there is nothing.
 */
export function toRuleSource(input: unknown, path: string): RuleSource {
  if (isRuleSource(input)) return input;
  const { rules, violations } =
    input === undefined || input === null
      ? { rules: [], violations: [violation('authorization-missing', path)] }
      : parseRules(input, path);
  return {
    kind: 'constant',
    check: async () => violations,
    async open() {
      if (violations.length > 0) throw new InsecureConfigurationError(path, violations);
      return { current: () => rules, onChange: () => () => {}, close: () => {} };
    },
  };
}

function isRuleSource(input: unknown): input is RuleSource {
  const { check, open } = (input ?? {}) as Partial<RuleSource>;
  return typeof check === 'function' && typeof open === 'function';
}
