import { isCanonicalRequest, parseRequestPattern } from './request-pattern.js';

/** The methods, or the requests in HTTP, that one entry of a rule's `to` names. */
export interface MethodPattern {
  /** As it was written: `orders.v1.Orders/Get`, `orders.v1.Orders/*` or `GET /v1/orders/*`. */
  readonly text: string;
  /** Names every method of the service, or all that a program has. */
  readonly wholeService: boolean;
  /** `asked` must be canonical. */
  matches(asked: string): boolean;
}

// The names of protobuf, which are also those of our contracts: nothing in them needs escaping or has a second spelling.
const SERVICE = '[A-Za-z_][A-Za-z0-9_]*(?:\\.[A-Za-z_][A-Za-z0-9_]*)*';
const METHOD = '[A-Za-z_][A-Za-z0-9_]*';
const CANONICAL = new RegExp(`^/${SERVICE}/${METHOD}$`);
const PATTERN = new RegExp(`^${SERVICE}/(?:${METHOD}|\\*)$`);

/**
 * Whether `asked` is spelled as routing spells it: `/package.Service/Method`, or `GET /path`. Authorization that understood more
 * spellings than routing, or fewer, is how it gets bypassed (CVE-2021-31920: `//admin`).
 */
export function isCanonical(asked: string): boolean {
  return CANONICAL.test(asked) || isCanonicalRequest(asked);
}

/**
 * Parses `package.Service/Method`, `package.Service/*` or a request in HTTP. Throws TypeError for anything else; the service is always
 * literal.
 */
export function parseMethodPattern(text: string, effect: 'allow' | 'deny'): MethodPattern {
  if (text.includes(' ')) return parseRequestPattern(text, effect);
  if (!PATTERN.test(text)) {
    throw new TypeError(`${JSON.stringify(text)} names no method: write package.Service/Method or package.Service/*`);
  }
  const wholeService = text.endsWith('/*');
  const start = `/${text.slice(0, -1)}`;
  const path = `/${text}`;
  return Object.freeze({
    text,
    wholeService,
    matches: (asked) => (wholeService ? asked.startsWith(start) : asked === path),
  } satisfies MethodPattern);
}
