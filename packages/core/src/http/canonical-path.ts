import { MalformedRequest } from './malformed-request.js';

/** Characters of a path (RFC 3986 section 3.3) without `;`, whose parameters routers and backends read differently. */
const PATH = /^\/[A-Za-z0-9\-._~!$&'()*+,=:@%/]*$/;
/** What nobody needs in a name, and what ends it, splits it or climbs out of it after another decoding. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const FORBIDDEN_IN_SEGMENT = /[\u0000-\u001f\u007f/\\%;]/;
/** Nearly every path is canonical already: letters, digits and the marks that are never encoded. */
const PLAIN = /^(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9\-._~]+)+\/?$/;

/**
 * The one spelling of the path of a request. Two spellings of one path are made one where RFC 3986 section 6.2.2 says how (`%41` is
 * `A`); what a router and a backend could read in two ways is refused: dot segments, empty segments, encoded slashes, backslashes and
 * percent signs, `;`, control characters, bytes that are not UTF-8.
 *
 * Throws MalformedRequest (`target-ambiguous`, `target-malformed`).
 */
export function canonicalPath(path: string): string {
  if (path === '/' || PLAIN.test(path)) return path;
  if (!PATH.test(path)) throw new MalformedRequest('target-malformed', 'the path holds characters that no path has');
  const segments = path.slice(1).split('/');
  // The last one is empty where the path ends with a slash, which is another path, not another spelling.
  return `/${segments.map((segment, index) => canonicalSegment(segment, index === segments.length - 1)).join('/')}`;
}

/** Whether `path` is spelled as `canonicalPath` spells it. */
export function isCanonicalPath(path: string): boolean {
  if (path === '/' || PLAIN.test(path)) return true;
  try {
    return canonicalPath(path) === path;
  } catch {
    return false;
  }
}

/** Throws MalformedRequest for bytes that are not UTF-8, overlong forms among them (RFC 3629 section 10). */
export function decodePercent(text: string): string {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    throw new MalformedRequest('target-malformed', 'the address holds bytes that are not UTF-8');
  }
}

function canonicalSegment(segment: string, isLast: boolean): string {
  if (segment === '' && isLast) return '';
  const decoded = decodePercent(segment);
  if (decoded === '' || decoded === '.' || decoded === '..' || FORBIDDEN_IN_SEGMENT.test(decoded)) {
    throw new MalformedRequest('target-ambiguous', 'the path can be read in more than one way');
  }
  // Leaves the unreserved characters and `!'()*`; the other sub-delimiters, `:` and `@` have no need of encoding here.
  return encodeURIComponent(decoded).replaceAll(/%(?:24|26|2B|2C|3D|3A|40)/g, decodeURIComponent);
}
