import { z } from 'zod';
import { MAX_TIMER_MS } from '../clock.js';
import { catalogue, type ViolationId } from './catalogue.js';
import { findInsecureSwitches } from './insecure-switches.js';
import { isPlainObject, joinPath, type Path } from './option-path.js';
import { type Violation, violation } from './violation.js';

export interface ParsedOptions<T> {
  /** The options with their defaults, deeply frozen; undefined exactly when there are violations. */
  readonly value: T | undefined;
  readonly violations: Violation[];
}

/**
 * Checks and defaults the options of a factory: the one place where options enter. `schema` is built of
 * `z.strictObject`s, so that unknown keys refuse. `path` is what the user calls the factory, e.g. `server`.
 *
 * Never throws and never changes the caller's object. A refinement may choose its violation with
 * `params: { violation: 'server-wildcard-bind' }`. No violation holds the value that was found.
 */
export function parseOptions<T>(schema: z.ZodType<T>, options: unknown, path: string): ParsedOptions<T> {
  const { violations, paths, seen } = findInsecureSwitches(options, path);
  const parsed = schema.safeParse(options);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      violations.push(...translate(issue, [], { schema, options, path }).filter((v) => !paths.has(v.path)));
    }
  }
  if (violations.length > 0 || !parsed.success) return { value: undefined, violations };
  return { value: deepFreeze(parsed.data, seen), violations };
}

export interface LimitRange {
  /** Default 1. */
  readonly min?: number;
  /** Default `Number.MAX_SAFE_INTEGER`. */
  readonly max?: number;
}

/** A whole number that bounds something. Zero, negative and infinite values are `limit-unbounded`. */
export function limit({ min = 1, max = Number.MAX_SAFE_INTEGER }: LimitRange = {}): z.ZodType<number, number> {
  const bounds = {
    type: 'integer',
    minimum: min,
    ...(max === Number.MAX_SAFE_INTEGER ? {} : { maximum: max }),
  } as const;
  const checked = z.custom<number>().superRefine((value: unknown, context) => {
    const refuse = (id: ViolationId, message: string) =>
      context.addIssue({ code: 'custom', message, params: { violation: id } });
    if (value === undefined) refuse('option-missing', 'the option is required');
    else if (typeof value !== 'number') refuse('option-invalid', 'expected a number');
    else if (!Number.isFinite(value) || value <= 0) refuse('limit-unbounded', catalogue['limit-unbounded'].problem);
    else if (!Number.isInteger(value)) refuse('option-invalid', 'expected a whole number');
    else if (value > max) refuse('limit-unbounded', `at most ${max} is allowed`);
    else if (value < min) refuse('option-invalid', `at least ${min} is needed`);
  });
  // For whoever makes a JSON Schema of it.
  return checked.meta(bounds);
}

/** A duration in milliseconds, bounded by what a timer can wait (24.8 days). */
export function durationMs(range: LimitRange = {}): z.ZodType<number, number> {
  return limit({ max: MAX_TIMER_MS, ...range });
}

/** What a factory made: `expected` names the factory, `methods` are those of its interface. */
export function made<T>(expected: string, ...methods: string[]): z.ZodType<T> {
  return z.custom<T>(
    (value) => methods.every((method) => typeof (value as Record<string, unknown> | null)?.[method] === 'function'),
    { error: `expected ${expected}` },
  );
}

interface Subject {
  readonly schema: z.ZodType;
  readonly options: unknown;
  readonly path: string;
}

function translate(issue: z.core.$ZodIssue, prefix: Path, subject: Subject): Violation[] {
  const steps = [...prefix, ...issue.path];
  const path = joinPath(subject.path, steps);
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(subject.schema, steps);
    return issue.keys.map((key) => violation('option-unknown', joinPath(path, [key]), unknownKey(key, known)));
  }
  if (issue.code === 'invalid_union') {
    const branch = meantBranch(issue.errors);
    if (branch) return branch.flatMap((inner) => translate(inner, steps, subject));
  }
  const chosen = issue.code === 'custom' ? chosenViolation(issue.params) : undefined;
  if (chosen) return [violation(chosen, path, issue.message)];
  if (valueAt(subject.options, steps) === undefined) return [violation('option-missing', path)];
  return [violation('option-invalid', path, issue.message)];
}

/** The one alternative of a union that the value has the type of. */
function meantBranch(branches: readonly (readonly z.core.$ZodIssue[])[]) {
  const sameType = branches.filter((issues) => !issues.some((i) => i.code === 'invalid_type' && i.path.length === 0));
  return sameType.length === 1 ? sameType[0] : undefined;
}

function chosenViolation(params: Record<string, unknown> | undefined): ViolationId | undefined {
  const id = params?.violation;
  return typeof id === 'string' && Object.hasOwn(catalogue, id) ? (id as ViolationId) : undefined;
}

function unknownKey(key: string, known: readonly string[]): string {
  const nearest = nearestKey(key, known);
  return nearest === undefined
    ? catalogue['option-unknown'].problem
    : `this option does not exist; did you mean "${nearest}"?`;
}

function nearestKey(key: string, known: readonly string[]): string | undefined {
  const wanted = key.toLowerCase();
  const ranked = known
    .map((name) => ({ name, distance: typoDistance(wanted, name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  return wanted.length > 2 && best && best.distance <= Math.max(1, Math.floor(wanted.length / 4))
    ? best.name
    : undefined;
}

/** Edit distance. Two letters in the wrong order, or a wrong ending (`timeout` for `timeoutMs`), count as one slip. */
function typoDistance(a: string, b: string): number {
  if (a !== b && Math.min(a.length, b.length) >= 3 && (a.startsWith(b) || b.startsWith(a))) return 1;
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swaps = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swapped = swaps ? (before[j - 2] ?? 0) + 1 : replaced;
      next.push(Math.min(replaced, swapped, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    before = row;
    row = next;
  }
  return row[b.length] ?? 0;
}

function keysAt(schema: z.ZodType, steps: Path): string[] {
  let at: unknown = unwrap(schema);
  for (const step of steps) {
    if (at instanceof z.ZodObject) at = unwrap(at.shape[String(step)]);
    else if (at instanceof z.ZodArray) at = unwrap(at.element);
    else return [];
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : [];
}

function unwrap(schema: unknown): unknown {
  if (schema instanceof z.ZodPipe) return unwrap(schema.in);
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodReadonly) {
    return unwrap(schema.unwrap());
  }
  return schema;
}

function valueAt(options: unknown, steps: Path): unknown {
  return steps.reduce<unknown>((at, step) => (at as Record<PropertyKey, unknown> | null | undefined)?.[step], options);
}

/** Freezes what zod has made; objects that the schema passed through belong to the caller and stay as they are. */
function deepFreeze<T>(value: T, callers: ReadonlySet<unknown>): T {
  if (callers.has(value) || !(Array.isArray(value) || isPlainObject(value)) || Object.isFrozen(value)) return value;
  for (const inner of Object.values(value)) deepFreeze(inner, callers);
  return Object.freeze(value);
}
