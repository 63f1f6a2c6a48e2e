import { z } from 'zod';
import { type IdentityPattern, parsePattern } from '../identity/matcher.js';
import { joinPath } from '../policy/option-path.js';
import { parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import { type MethodPattern, parseMethodPattern } from './method-pattern.js';

export type Effect = 'allow' | 'deny';

export interface RuleOptions {
  /** Callers: SPIFFE IDs in which a segment may be `*` and the last `**`, e.g. `spiffe://prod.acme/ns/shop/*`. */
  readonly from: string | readonly string[];
  /** Methods: `package.Service/Method` or `package.Service/*`. Before programs that speak HTTP, requests: `GET /v1/orders/*`. */
  readonly to: string | readonly string[];
  /** What logs and events call the rule; default: its place, e.g. `authorize[0]`. */
  readonly name?: string;
}

/** A rule as it is written, in code or in a file. */
export interface Rule extends RuleOptions {
  readonly effect: Effect;
}

/** A set of rules as it stands in a file. */
export interface RuleDocument {
  readonly version: 1;
  readonly rules: readonly Rule[];
}

/** A rule that has been parsed; comes only from `parseRules`. */
export interface ParsedRule {
  readonly name: string;
  readonly effect: Effect;
  readonly callers: readonly IdentityPattern[];
  readonly methods: readonly MethodPattern[];
}

export interface ParsedRules {
  /** Empty when there are violations: half a rule set is none. */
  readonly rules: readonly ParsedRule[];
  readonly violations: readonly Violation[];
}

/**
 * Lets the named callers call the named methods. What no rule allows is denied.
 *
 * @example allow({ from: 'spiffe://prod.acme/svc/web', to: 'orders.v1.Orders/*' })
 */
export function allow(options: RuleOptions): Rule {
  return Object.freeze({ ...options, effect: 'allow' });
}

/** Denies the named callers the named methods, whatever else allows them. */
export function deny(options: RuleOptions): Rule {
  return Object.freeze({ ...options, effect: 'deny' });
}

/**
 * Parses a list of rules or a rule document. `path` is where it stands, e.g. `authorize`. Never throws. Violations:
 * `authorization-rule-invalid`, `authorization-allow-all`, and `option-…` for unknown, missing and malformed fields.
 */
export function parseRules(input: unknown, path: string): ParsedRules {
  if (typeof input !== 'object' || (input !== null && 'effect' in input)) {
    const problem = 'expected a list of rules, [allow({ from, to })], or { version: 1, rules: [...] }';
    return { rules: [], violations: [violation('option-invalid', path, problem)] };
  }
  const isDocument = !Array.isArray(input);
  const listPath = isDocument ? joinPath(path, ['rules']) : path;
  const { value, violations } = isDocument
    ? parseOptions(documentSchema, input, path)
    : parseOptions(listSchema, input, path);
  if (value === undefined) return { rules: [], violations };
  const written = 'rules' in value ? value.rules : value;
  const rules = written.map((rule, i) => parseRule(rule, joinPath(listPath, [i]), violations));
  return { rules: violations.length === 0 ? Object.freeze(rules) : [], violations };
}

const ruleSchema = z.strictObject({
  name: z.string().min(1).max(200).optional(),
  effect: z.enum(['allow', 'deny']),
  from: z.union([z.string(), z.array(z.string())]),
  to: z.union([z.string(), z.array(z.string())]),
});

const listSchema = z.array(ruleSchema);

const documentSchema = z.strictObject({
  version: z.unknown().superRefine((version, context) => {
    if (version === 1) return;
    const message = 'this SDK understands rules of version 1 only';
    context.addIssue({ code: 'custom', message, params: { violation: 'authorization-rule-invalid' } });
  }),
  rules: listSchema,
});

// What people write when they mean everybody and everything. The language has no words for it, on purpose.
const EVERYBODY = /^(?:spiffe:\/\/)?\*/;
const EVERYTHING = /^\/?\*/;

function parseRule(rule: z.infer<typeof ruleSchema>, path: string, violations: Violation[]): ParsedRule {
  const { effect, name = path } = rule;
  const callers = parseEntries(rule.from, joinPath(path, ['from']), { effect, all: EVERYBODY, parse: parsePattern });
  const methods = parseEntries(rule.to, joinPath(path, ['to']), {
    effect,
    all: EVERYTHING,
    parse: (text) => parseMethodPattern(text, effect),
  });
  violations.push(...callers.violations, ...methods.violations);
  if (effect === 'allow' && callers.parsed.some((c) => c.namesNobody) && methods.parsed.some((m) => m.wholeService)) {
    const problem = 'the rule lets every workload of a trust domain call every method of a service';
    violations.push(violation('authorization-allow-all', path, problem));
  }
  return Object.freeze({ name, effect, callers: callers.parsed, methods: methods.parsed });
}

interface EntryGrammar<T> {
  readonly effect: Effect;
  readonly all: RegExp;
  readonly parse: (text: string) => T;
}

function parseEntries<T>(written: string | readonly string[], path: string, grammar: EntryGrammar<T>) {
  const parsed: T[] = [];
  const violations: Violation[] = [];
  const entries = typeof written === 'string' ? [written] : written;
  if (entries.length === 0) violations.push(violation('authorization-rule-invalid', path, 'the list is empty'));
  for (const [i, entry] of entries.entries()) {
    try {
      parsed.push(grammar.parse(entry));
    } catch (error) {
      const everyone = grammar.effect === 'allow' && grammar.all.test(entry);
      const id = everyone ? 'authorization-allow-all' : 'authorization-rule-invalid';
      const at = typeof written === 'string' ? path : joinPath(path, [i]);
      violations.push(violation(id, at, error instanceof TypeError ? error.message : undefined));
    }
  }
  return { parsed, violations };
}
