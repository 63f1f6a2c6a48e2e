import type { z } from 'zod';
import { CallError } from '../errors.js';
import { badRequest } from '../transport/status-details.js';
import type { Subject } from './json-text.js';

export type Issue = z.core.$ZodIssue;

/** One field that breaks the contract, in words that come from the schema and never from the value. */
interface FieldProblem {
  /** `items[2].cents`; empty for the message itself. */
  readonly field: string;
  /** `expected number` */
  readonly problem: string;
}

/** Issues that one error lists; the others are only counted. */
const MAX_LISTED = 5;

/** A path is told this far; five of them must fit into the header that carries the status. */
const MAX_FIELD_LENGTH = 128;

/** At the server: INVALID_ARGUMENT that names the fields, also as `google.rpc.BadRequest`. */
export function requestInvalid(issues: readonly Issue[]): CallError {
  const problems = fieldProblems(issues);
  const violations = problems.map(({ field, problem }) => ({ field, description: problem }));
  return new CallError('INVALID_ARGUMENT', describe('request', problems, issues.length), {
    details: [badRequest(violations)],
  });
}

/** At the server: the handler broke its promise. The caller learns no more than that; the cause names the fields, for the log. */
export function responseInvalid(issues: readonly Issue[]): CallError {
  const cause = new Error(describe('response', fieldProblems(issues), issues.length));
  return new CallError('INTERNAL', 'response validation failed', { cause });
}

/** At the client: the server answered with something else than the contract says. */
export function receivedResponseInvalid(issues: readonly Issue[]): CallError {
  return new CallError('INTERNAL', describe('response', fieldProblems(issues), issues.length));
}

/** At the receiver of a message that is too large to look for the field. */
export function unsearched(subject: Subject): CallError {
  const message = `${subject} does not match its schema; it is too large to say where`;
  return new CallError(subject === 'request' ? 'INVALID_ARGUMENT' : 'INTERNAL', message);
}

function fieldProblems(issues: readonly Issue[]): FieldProblem[] {
  return issues.slice(0, MAX_LISTED).map((issue) => ({ field: fieldName(issue.path), problem: problemOf(issue) }));
}

function describe(subject: Subject, problems: readonly FieldProblem[], total: number): string {
  const listed = problems.map(({ field, problem }) =>
    field === '' ? `${subject}: ${problem}` : `${subject} field "${field}": ${problem}`,
  );
  if (total > problems.length) listed.push(`and ${total - problems.length} more`);
  return listed.join('; ');
}

function fieldName(path: readonly PropertyKey[]): string {
  let name = '';
  for (const segment of path) {
    if (typeof segment === 'number') name += `[${segment}]`;
    else name += `${name === '' ? '' : '.'}${shown(segment)}`;
  }
  return name.length > MAX_FIELD_LENGTH ? `${name.slice(0, MAX_FIELD_LENGTH)}...` : name;
}

// The key of a record comes from the peer, and a log line is no place for what it may hold.
function shown(segment: string | symbol): string {
  return typeof segment === 'string' && /^[A-Za-z0-9_-]{1,64}$/.test(segment) ? segment : '?';
}

/** Built from the issue's code: its message may be the user's and quote the value. Literals and enums may be secrets. */
function problemOf(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `expected ${term(issue.expected, 'another type')}`;
    case 'too_big':
      return `must be ${issue.inclusive === false ? 'less than' : 'at most'} ${issue.maximum}${unit(issue.origin)}`;
    case 'too_small':
      return `must be ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}${unit(issue.origin)}`;
    case 'invalid_format':
      return `not a valid ${term(issue.format, 'format')}`;
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}`;
    case 'unrecognized_keys':
      return issue.keys.length === 1 ? 'has an unknown key' : `has ${issue.keys.length} unknown keys`;
    case 'invalid_union':
      return issue.inclusive === false ? 'matches more than one alternative' : 'matches none of the alternatives';
    case 'invalid_key':
      return 'has an invalid key';
    case 'invalid_element':
      return 'has an invalid element';
    case 'invalid_value':
      return 'not one of the allowed values';
    default:
      return 'not valid';
  }
}

// A refinement may report issues of any code with any text.
function term(word: string, fallback: string): string {
  return /^[a-z][a-z0-9_]{0,31}$/.test(word) ? word : fallback;
}

function unit(origin: string): string {
  if (origin === 'string') return ' characters long';
  return origin === 'array' ? ' items long' : '';
}
