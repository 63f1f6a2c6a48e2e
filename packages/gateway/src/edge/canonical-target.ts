import { badRequest } from '../problem.js';

export interface CanonicalTarget {
  /** The one spelling of the path: what routing, authorization and logs see. */
  readonly path: string;
  readonly query: ReadonlyMap<string, readonly string[]>;
}

/** Characters of a path (RFC 3986 section 3.3) without `;`, whose parameters routers and backends read differently. */
const PATH = /^\/[A-Za-z0-9\-._~!$&'()*+,=:@%/]*$/;
const QUERY = /^[A-Za-z0-9\-._~!$&'()*+,=:@%/?;[\]|^{}"`\\]*$/;
/** What nobody needs in a name, and what ends it, splits it or climbs out of it after another decoding. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const FORBIDDEN_IN_SEGMENT = /[\u0000-\u001f\u007f/\\%;]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: likewise.
const FORBIDDEN_IN_QUERY = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/;
const MAX_PAIRS = 100;
/** RFC 6750 section 2.3 and RFC 9700 section 4.3.2: addresses end up in logs, histories and referrers. */
const CREDENTIALS = new Set(['access_token', 'id_token', 'refresh_token', 'client_secret', 'api_key', 'apikey']);

/**
 * Reads a request target in origin form (RFC 9112 section 3.2.1). Two spellings of one path are made one where RFC 3986
 * section 6.2.2 says how (`%41` is `A`); what a router and a backend could read in two ways is refused: dot segments, empty
 * segments, encoded slashes, backslashes and percent signs, `;`, control characters, bytes that are not UTF-8.
 *
 * Throws ProblemError 400 (`target-ambiguous`, `target-malformed`, `credential-in-query`).
 */
export function canonicalTarget(target: string): CanonicalTarget {
  const at = target.indexOf('?');
  const path = at < 0 ? target : target.slice(0, at);
  return { path: canonicalPath(path), query: at < 0 ? none : parseQuery(target.slice(at + 1)) };
}

const none: ReadonlyMap<string, readonly string[]> = new Map();
/** Nearly every path is canonical already: letters, digits and the marks that are never encoded. */
const PLAIN = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9\-._~]+)+\/?$/;

function canonicalPath(path: string): string {
  if (path === '/' || PLAIN.test(path)) return path;
  if (!PATH.test(path)) throw badRequest('target-malformed', 'the path holds characters that no path has');
  const segments = path.slice(1).split('/');
  // The last one is empty where the path ends with a slash, which is another path, not another spelling.
  return `/${segments.map((segment, index) => canonicalSegment(segment, index === segments.length - 1)).join('/')}`;
}

function canonicalSegment(segment: string, isLast: boolean): string {
  if (segment === '' && isLast) return '';
  const decoded = decode(segment);
  if (decoded === '' || decoded === '.' || decoded === '..' || FORBIDDEN_IN_SEGMENT.test(decoded)) {
    throw badRequest('target-ambiguous', 'the path can be read in more than one way');
  }
  // Leaves the unreserved characters and `!'()*`; the other sub-delimiters, `:` and `@` have no need of encoding here.
  return encodeURIComponent(decoded).replaceAll(/%(?:24|26|2B|2C|3D|3A|40)/g, decodeURIComponent);
}

function parseQuery(text: string): ReadonlyMap<string, readonly string[]> {
  if (!QUERY.test(text)) throw badRequest('target-malformed', 'the query holds characters that no query has');
  const query = new Map<string, string[]>();
  const pairs = text.split('&').filter((pair) => pair !== '');
  if (pairs.length > MAX_PAIRS) throw badRequest('target-malformed', `the query has more than ${MAX_PAIRS} parameters`);
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    const name = decodeQuery(equals < 0 ? pair : pair.slice(0, equals));
    const value = decodeQuery(equals < 0 ? '' : pair.slice(equals + 1));
    if (CREDENTIALS.has(name.toLowerCase())) {
      throw badRequest('credential-in-query', 'credentials belong in the Authorization header, not in the address');
    }
    const values = query.get(name);
    if (values) values.push(value);
    else query.set(name, [value]);
  }
  return query;
}

function decodeQuery(text: string): string {
  const decoded = decode(text.replaceAll('+', ' '));
  if (FORBIDDEN_IN_QUERY.test(decoded)) throw badRequest('target-malformed', 'the query holds control characters');
  return decoded;
}

/** Refuses bytes that are not UTF-8, overlong forms among them (RFC 3629 section 10). */
function decode(text: string): string {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    throw badRequest('target-malformed', 'the address holds bytes that are not UTF-8');
  }
}
