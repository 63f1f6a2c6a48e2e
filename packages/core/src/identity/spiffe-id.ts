const SCHEME = 'spiffe://';
const MAX_ID_BYTES = 2048;
const MAX_TRUST_DOMAIN_BYTES = 255;
const TRUST_DOMAIN = /^[a-z0-9._-]+$/;
const SEGMENT = /^[a-zA-Z0-9._-]+$/;

/**
 * The identity of a workload: `spiffe://<trust domain>/<path>`, where the path is never empty. An instance is proof that
 * the text went through the parser, so whoever is handed one need not check again. Immutable.
 */
export class SpiffeId {
  /** `prod.acme` */
  readonly trustDomain: string;
  /** With the leading slash: `/svc/web` */
  readonly path: string;
  /** `['svc', 'web']` */
  readonly segments: readonly string[];
  // The private name makes the type nominal: no object literal passes for a parsed id.
  readonly #text: string;

  private constructor(text: string, trustDomain: string, path: string, segments: readonly string[]) {
    this.#text = text;
    this.trustDomain = trustDomain;
    this.path = path;
    this.segments = Object.freeze(segments);
    Object.freeze(this);
  }

  /** The id that `text` spells, or undefined when it spells none. */
  static tryParse(text: string): SpiffeId | undefined {
    const parsed = SpiffeId.#parse(text);
    return parsed instanceof SpiffeId ? parsed : undefined;
  }

  /** Throws TypeError that says which rule of the grammar was broken. */
  static parse(text: string): SpiffeId {
    const parsed = SpiffeId.#parse(text);
    if (parsed instanceof SpiffeId) return parsed;
    throw new TypeError(`${quoted(text)} is not a SPIFFE ID: ${parsed}`);
  }

  static #parse(text: string): SpiffeId | string {
    const rest = afterScheme(text);
    if (rest === undefined) return 'it must start with "spiffe://" (lower case)';
    // Every character the grammar allows is ASCII, so characters count bytes.
    if (text.length > MAX_ID_BYTES) return `it is longer than ${MAX_ID_BYTES} bytes`;
    const slash = rest.indexOf('/');
    const trustDomain = slash === -1 ? rest : rest.slice(0, slash);
    const domainProblem = trustDomainProblem(trustDomain);
    if (domainProblem !== undefined) return domainProblem;
    if (slash === -1) return 'it names a trust domain; a workload has a path';
    const segments = rest.slice(slash + 1).split('/');
    for (const segment of segments) {
      const problem = segmentProblem(segment);
      if (problem !== undefined) return problem;
    }
    return new SpiffeId(text, trustDomain, rest.slice(slash), segments);
  }

  equals(other: SpiffeId): boolean {
    return this.#text === other.#text;
  }

  toString(): string {
    return this.#text;
  }

  toJSON(): string {
    return this.#text;
  }
}

/**
 * Parses the id of a workload by the grammar of SPIFFE-ID §2. Not by WHATWG `URL`: that decodes `%2f`, resolves `..`,
 * lower-cases and drops ports, so two different texts could become the same identity.
 *
 * Throws TypeError for anything else, an id without a path (a trust domain) included.
 */
export function parseSpiffeId(text: string): SpiffeId {
  return SpiffeId.parse(text);
}

/** Parses a trust domain, as a name (`prod.acme`) or as its id (`spiffe://prod.acme`), and returns the name. Throws TypeError. */
export function parseTrustDomain(text: string): string {
  const name = afterScheme(text) ?? text;
  const problem = trustDomainProblem(name);
  if (problem !== undefined) throw new TypeError(`${quoted(text)} is not a trust domain: ${problem}`);
  return name;
}

/** What keeps `segment` from being one segment of a SPIFFE path; undefined when nothing does. */
export function segmentProblem(segment: string): string | undefined {
  if (segment === '') return 'its path has an empty segment (a double or trailing slash)';
  if (segment === '.' || segment === '..') return 'its path has a relative segment';
  if (!SEGMENT.test(segment)) return 'its path may hold letters, digits, ".", "-" and "_" only';
  return undefined;
}

function trustDomainProblem(name: string): string | undefined {
  if (name === '') return 'the trust domain is empty';
  if (name.length > MAX_TRUST_DOMAIN_BYTES) return `the trust domain is longer than ${MAX_TRUST_DOMAIN_BYTES} bytes`;
  if (!TRUST_DOMAIN.test(name)) return 'a trust domain holds lower-case letters, digits, ".", "-" and "_" only';
  return undefined;
}

function afterScheme(text: string): string | undefined {
  return text.startsWith(SCHEME) ? text.slice(SCHEME.length) : undefined;
}

/** The text may come from a hostile certificate: escaped and short, so that it cannot forge or flood a log line. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
}
