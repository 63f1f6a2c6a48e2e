import { MalformedRequest } from './malformed-request.js';

/** Two of them would be two requests in one, or two answers to who is asking. */
const SINGLE = new Set([
  'authorization',
  'content-length',
  'content-type',
  'content-encoding',
  'transfer-encoding',
  'host',
  'origin',
  'dpop',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'range',
  'idempotency-key',
  'traceparent',
  'user-agent',
  'referer',
  'max-forwards',
  'proxy-authorization',
  'upgrade',
]);

/**
 * Names under which proxies and programs pass on who somebody is or what they ask for: what a client sends under them is a claim, and
 * nothing behind us may see it (T51, T65).
 */
const CLAIM = new RegExp(
  `^(?:${[
    // Where it came from, and how.
    'x-forwarded(?:-.*)?|x-forward-for|forwarded|x-real-ip|x-originating-ip|(?:[a-z]+-)*client-ip|[a-z]+-connecting-ip.*',
    'x-host|x-original-.*|x-rewrite-.*|x-http-method.*|x-method-override|x-middleware-.*|proxy|x-proxy-?user.*',
    'x-envoy-.*|x-azure-.*|x-appengine-.*|x-arr-.*',
    // Who it was.
    'x-client-.*|client-cert.*|x-certificate.*|x-m?tls-.*|x-ssl-.*|ssl-.*|x-spiffe-.*|x-amzn-(?:mtls|oidc)-.*',
    'x-user.*|x-auth-.*|x-authenticated-.*|x-remote-.*|remote-.*|x-identity.*|x-email|x-subject|x-jwt-.*|x-webauth-.*',
    'x-groups?|x-roles?|x-scopes?|x-permissions?',
    'x-consumer-.*|x-credential-.*|x-anonymous-.*|x-goog-.*|x-ms-(?:client|token)-.*|x-pomerium-.*|x-authentik-.*|x-vouch-.*',
    // What we ourselves say.
    '(?:x-)?sallyport-.*|grpc-.*',
  ].join('|')})$`,
);

/** RFC 9110 section 7.6.1: they belong to one connection, and so does whatever `Connection` names. RFC 7540 section 3.2.1 has one more. */
const HOP_BY_HOP = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Without them the message would mean something else; a `Connection` that names one wants to strip it behind us. */
const NEVER_HOP_BY_HOP = new Set([
  'host',
  'authorization',
  'content-length',
  'content-type',
  'cookie',
  'origin',
  'dpop',
]);

/**
 * Makes one reading of the headers of a request as they came (`rawHeaders`, names and values in turn), by lower-case name: lists are
 * joined (RFC 9110 section 5.3), pseudo-headers of HTTP/2 left out. Throws MalformedRequest (`header-repeated`, `framing-ambiguous`,
 * `transfer-coding-unknown`).
 */
export function readHeaders(raw: readonly string[]): Readonly<Record<string, string>> {
  const seen: Record<string, string> = Object.create(null);
  for (let i = 0; i < raw.length; i += 2) {
    const { name, isSingle } = headerName(raw[i] as string);
    if (name.charCodeAt(0) === 0x3a /* : */) continue;
    const value = raw[i + 1] as string;
    const before = seen[name];
    if (before === undefined) seen[name] = value;
    else if (isSingle) throw new MalformedRequest('header-repeated', `the header ${name} stands more than once`);
    else seen[name] = `${before}${name === 'cookie' ? '; ' : ', '}${value}`;
  }
  if (seen['content-length'] !== undefined && seen['transfer-encoding'] !== undefined) {
    // RFC 9112 section 6.3: the oldest way to hide a second request.
    throw new MalformedRequest('framing-ambiguous', 'Content-Length and Transfer-Encoding exclude each other');
  }
  if (isUnknownCoding(seen['transfer-encoding'])) {
    throw new MalformedRequest('transfer-coding-unknown', 'no transfer coding is taken but chunked');
  }
  return seen;
}

/**
 * Whether a `Transfer-Encoding` names more than `chunked` (RFC 9112 section 7). The parser takes the chunks off and nothing else: what is
 * left would go on under no name, and be taken for the body itself.
 */
export function isUnknownCoding(transferEncoding: string | undefined): boolean {
  return transferEncoding !== undefined && transferEncoding.toLowerCase() !== 'chunked';
}

/** Names that `Connection` takes out of the message behind us. Throws MalformedRequest (`header-hidden`). */
export function namedByConnection(connection: string | undefined): readonly string[] {
  if (connection === undefined) return [];
  const names = connection.split(',').map((name) => name.trim().toLowerCase());
  const wrong = names.find((name) => NEVER_HOP_BY_HOP.has(name));
  if (wrong !== undefined) throw new MalformedRequest('header-hidden', `Connection must not name ${wrong}`);
  return names;
}

/** What is known of a header by its name alone. */
export interface HeaderName {
  /** In lower case. */
  readonly name: string;
  /** It may stand once. */
  readonly isSingle: boolean;
  /** It belongs to one connection (RFC 9110 section 7.6.1). */
  readonly isHopByHop: boolean;
  /**
   * It tells who somebody is, or asks for another method or path than the request line. To CGI and to many frameworks `-`, `_` and
   * other marks are one letter, so they are here.
   */
  readonly isClaim: boolean;
}

const names = new Map<string, HeaderName>();
const MAX_REMEMBERED = 512;
const MAX_REMEMBERED_LENGTH = 64;

/** Names repeat from request to request. They are the client's choice: a bounded number of them is remembered. */
export function headerName(raw: string): HeaderName {
  const known = names.get(raw);
  if (known) return known;
  const name = raw.toLowerCase();
  const isClaim = CLAIM.test(name) || (/[^a-z0-9-]/.test(name) && CLAIM.test(name.replaceAll(/[^a-z0-9-]/g, '-')));
  const found = { name, isSingle: SINGLE.has(name), isHopByHop: HOP_BY_HOP.has(name), isClaim };
  if (names.size < MAX_REMEMBERED && raw.length <= MAX_REMEMBERED_LENGTH) names.set(raw, found);
  return found;
}

/** Whether a header belongs to one connection. */
export function isHopByHop(name: string): boolean {
  return headerName(name).isHopByHop;
}

/** Whether a header tells who somebody is, or asks for another method or path than the request line. */
export function isClaim(name: string): boolean {
  return headerName(name).isClaim;
}
