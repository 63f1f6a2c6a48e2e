import { parseSpiffeId, parseTrustDomain, type SpiffeId, segmentProblem } from './spiffe-id.js';

/** A set of identities, as a value. */
export interface IdentityMatcher {
  matches(id: SpiffeId): boolean;
  /** For messages: what it stands for. */
  readonly description: string;
  /** The one trust domain all its members belong to. */
  readonly trustDomain: string;
}

/** Exactly this identity. */
export function exactly(id: SpiffeId | string): IdentityMatcher {
  return oneOf([id]);
}

/** Any of these identities, which must be of one trust domain. Throws TypeError when there are none: that would be nobody. */
export function oneOf(ids: readonly (SpiffeId | string)[]): IdentityMatcher {
  const parsed = ids.map((id) => (typeof id === 'string' ? parseSpiffeId(id) : id));
  const [first] = parsed;
  if (first === undefined) throw new TypeError('oneOf() needs at least one SPIFFE ID');
  const stranger = parsed.find((id) => id.trustDomain !== first.trustDomain);
  if (stranger !== undefined) throw new TypeError(`${first} and ${stranger} belong to different trust domains`);
  const texts = new Set(parsed.map(String));
  return Object.freeze({
    matches: (id) => texts.has(id.toString()),
    description: [...texts].join(' or '),
    trustDomain: first.trustDomain,
  } satisfies IdentityMatcher);
}

/** Every workload of a trust domain. */
export function memberOf(trustDomain: string): IdentityMatcher {
  const name = parseTrustDomain(trustDomain);
  return Object.freeze({
    matches: (id) => id.trustDomain === name,
    description: `any workload of ${name}`,
    trustDomain: name,
  } satisfies IdentityMatcher);
}

/** Every identity that the pattern covers; see `parsePattern`. */
export function matching(pattern: string): IdentityMatcher {
  return parsePattern(pattern);
}

/** An identity, or a set of them by the segments of their path. */
export interface IdentityPattern extends IdentityMatcher {
  /** No segment is literal, so it names nobody in particular. */
  readonly namesNobody: boolean;
}

/**
 * Parses the pattern language of the rules: a SPIFFE ID in which a segment may be `*` (exactly one whole segment) and
 * the last may be `**` (one or more). The trust domain is always literal. `spiffe://prod.acme/ns/shop/*` covers
 * `…/ns/shop/cart` and not `…/ns/shop/cart/blue`; `spiffe://prod.acme/**` covers the whole trust domain.
 *
 * Throws TypeError for anything else, half a segment (`web-*`) included.
 */
export function parsePattern(text: string): IdentityPattern {
  const [, domain = '', path] = /^(spiffe:\/\/[^/]*)\/(.*)$/s.exec(text) ?? [];
  if (path === undefined)
    throw new TypeError(`${JSON.stringify(text)} is not a pattern: it needs "spiffe://", a trust domain and a path`);
  const trustDomain = parseTrustDomain(domain);
  const segments = path.split('/');
  const open = segments.at(-1) === '**';
  const fixed = open ? segments.slice(0, -1) : segments;
  for (const segment of fixed) {
    const problem = segment === '*' ? undefined : patternProblem(segment);
    if (problem !== undefined) throw new TypeError(`${JSON.stringify(text)} is not a pattern: ${problem}`);
  }
  return Object.freeze({
    matches: (id) =>
      id.trustDomain === trustDomain &&
      (open ? id.segments.length > fixed.length : id.segments.length === fixed.length) &&
      fixed.every((segment, i) => segment === '*' || segment === id.segments[i]),
    description: text,
    trustDomain,
    namesNobody: fixed.every((segment) => segment === '*'),
  } satisfies IdentityPattern);
}

function patternProblem(segment: string): string | undefined {
  if (segment === '**') return '"**" may stand only at the end';
  if (segment.includes('*')) return '"*" stands for a whole segment, never for a part of one';
  return segmentProblem(segment);
}
