import { canonicalPath, decodePercent } from '@sallyport/core/spi';
import { badRequest, readOrRefuse } from '../problem.js';

export interface CanonicalTarget {
  /** The one spelling of the path: what routing, authorization and logs see. */
  readonly path: string;
  readonly query: ReadonlyMap<string, readonly string[]>;
}

const QUERY = /^[A-Za-z0-9\-._~!$&'()*+,=:@%/?;[\]|^{}"`\\]*$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const FORBIDDEN_IN_QUERY = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/;
const MAX_PAIRS = 100;
/** RFC 6750 section 2.3 and RFC 9700 section 4.3.2: addresses end up in logs, histories and referrers. */
const CREDENTIALS = new Set(['access_token', 'id_token', 'refresh_token', 'client_secret', 'api_key', 'apikey']);

/**
 * Reads a request target in origin form (RFC 9112 section 3.2.1), its path in the one spelling. Throws ProblemError 400
 * (`target-ambiguous`, `target-malformed`, `credential-in-query`).
 */
export function canonicalTarget(target: string): CanonicalTarget {
  const at = target.indexOf('?');
  const path = at < 0 ? target : target.slice(0, at);
  return { path: readOrRefuse(() => canonicalPath(path)), query: at < 0 ? none : parseQuery(target.slice(at + 1)) };
}

const none: ReadonlyMap<string, readonly string[]> = new Map();

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
  const decoded = readOrRefuse(() => decodePercent(text.replaceAll('+', ' ')));
  if (FORBIDDEN_IN_QUERY.test(decoded)) throw badRequest('target-malformed', 'the query holds control characters');
  return decoded;
}
