import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import { isSpoofable } from '../edge/header-guard.js';
import type { Exchange } from '../exchange.js';

/** What may go through on a route that says so; nothing else of the client's identity ever does. */
export type PassedCredential = 'authorization' | 'cookie';

/** What of a client's headers goes on to the service. */
export interface PassedHeaders {
  readonly passes: ReadonlySet<PassedCredential>;
  /** Names of those that hold credentials for the gateway, e.g. API keys: none of them. */
  readonly credentials: ReadonlySet<string>;
  /** These and no others. */
  readonly only?: ReadonlySet<string> | undefined;
}

/** They are meant for the gateway, or for one connection (RFC 9110 section 7.6.1). */
const OWN_REQUEST_HEADERS = new Set([
  'host',
  'authorization',
  'cookie',
  'dpop',
  'proxy-authorization',
  'expect',
  'content-length',
  'origin',
  'traceparent',
  'tracestate',
]);
/** W3C Trace Context section 3.2. */
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/**
 * The headers of a request as the service sees them: what the guard has let through, without the client's credentials, and
 * where it came from. For whom it is made is added when it is known who answers.
 */
export function requestHeaders(
  { request }: Exchange,
  { passes, credentials, only }: PassedHeaders,
): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(request.headers)) {
    if (OWN_REQUEST_HEADERS.has(name) || credentials.has(name) || only?.has(name) === false) continue;
    headers[name] = value;
  }
  if (passes.has('authorization') && request.headers.authorization !== undefined) {
    headers.authorization = request.headers.authorization;
  }
  const cookies = passes.has('cookie') ? foreignCookies(request.headers.cookie) : '';
  if (cookies !== '') headers.cookie = cookies;
  if (TRACEPARENT.test(request.headers.traceparent ?? '')) {
    headers.traceparent = request.headers.traceparent;
    if (request.headers.tracestate !== undefined) headers.tracestate = request.headers.tracestate;
  }
  return {
    ...headers,
    'x-request-id': request.id,
    'x-forwarded-for': request.remoteAddress,
    'x-forwarded-proto': 'https',
    'x-forwarded-host': new URL(request.origin).host,
  };
}

/** RFC 9110 section 7.6.1, and what the gateway alone decides or nobody outside needs to know. */
const OWN_ANSWER_HEADERS =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|server|via|x-powered-by|x-aspnet.*|access-control-.*|strict-transport-security|alt-svc|set-cookie|location|x-request-id|ratelimit.*|x-runtime)$/;
/** Where the service knows better what its answer needs. */
const SERVICE_DECIDES = new Set(['cache-control', 'content-security-policy', 'referrer-policy']);

/** The headers of an answer as the client sees them. `authority` is the service's, which stays inside. */
export function answerHeaders(
  answered: IncomingHttpHeaders,
  { answerHeaders: own, request }: Exchange,
  { authority, passes }: { readonly authority: string; readonly passes: ReadonlySet<PassedCredential> },
): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = { ...own, 'x-request-id': request.id };
  const named = answered.connection?.toLowerCase().split(/\s*,\s*/) ?? [];
  for (const [name, value] of Object.entries(answered)) {
    if (value === undefined || OWN_ANSWER_HEADERS.test(name) || named.includes(name) || isSpoofable(name)) continue;
    if (name === 'vary') headers.vary = own.vary === undefined ? String(value) : `${own.vary}, ${value}`;
    else if (own[name] === undefined || SERVICE_DECIDES.has(name)) headers[name] = value;
  }
  if (answered.location !== undefined) headers.location = withoutAuthority(answered.location, authority);
  const cookies = passes.has('cookie') ? (answered['set-cookie'] ?? []).flatMap(safeCookie) : [];
  if (cookies.length > 0) headers['set-cookie'] = cookies;
  return headers;
}

/** `__Host-` is how the gateway names its own. */
function foreignCookies(header: string | undefined): string {
  const cookies = header?.split(';').map((cookie) => cookie.trim()) ?? [];
  return cookies.filter((cookie) => cookie !== '' && !/^__host-/i.test(cookie)).join('; ');
}

/** RFC 6265: for this host alone, over TLS alone; one under a name of the gateway's is dropped. */
function safeCookie(cookie: string): string[] {
  const [pair = '', ...attributes] = cookie.split(';').map((part) => part.trim());
  if (pair === '' || /^__host-/i.test(pair)) return [];
  const kept = attributes.filter((attribute) => !/^(?:domain|secure)(?:\s*=|$)/i.test(attribute));
  return [[pair, ...kept, 'Secure'].join('; ')];
}

/** A redirect to where the service believes itself to be would show that, and lead nowhere. */
function withoutAuthority(location: string, authority: string): string {
  try {
    const url = new URL(location);
    return url.host === authority ? `${url.pathname}${url.search}${url.hash}` : location;
  } catch {
    return location;
  }
}
