import { badRequest, ProblemError } from '../problem.js';

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
 * Names under which proxies and programs pass on who somebody is, in any spelling: what a client sends under them is a
 * claim, and nothing behind the edge may see it (T51). `_` and `-` are one letter to CGI and to many frameworks.
 */
const SPOOFABLE = new RegExp(
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
    // What the gateway itself says.
    '(?:x-)?sallyport-.*|grpc-.*',
  ].join('|')})$`,
);

/** RFC 9110 section 7.6.1: they belong to one connection, and so does whatever `Connection` names. */
const HOP_BY_HOP = new Set([
  'connection',
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

export interface GuardedHeaders {
  /** By lower-case name; what is left for handlers and upstreams. */
  readonly headers: Readonly<Record<string, string>>;
  readonly host: string | undefined;
  /** `X-Forwarded-For` as it came; to be believed of trusted proxies only. */
  readonly forwardedFor: string | undefined;
  /** The client asks to switch to `websocket` (RFC 6455 section 4.1). */
  readonly upgrade: string | undefined;
}

export interface HeaderLimits {
  readonly maxHeaders: number;
}

/**
 * Makes one reading of the headers as they came (`rawHeaders`, names and values in turn): repeated where one is meant is
 * refused, claims of identity are dropped, lists are joined (RFC 9110 section 5.3). Throws ProblemError 400 or 431.
 */
export function guardHeaders(raw: readonly string[], limits: HeaderLimits): GuardedHeaders {
  if (raw.length / 2 > limits.maxHeaders) throw tooMany(limits.maxHeaders);
  const headers: Record<string, string> = Object.create(null);
  let dropped = nothing;
  for (let i = 0; i < raw.length; i += 2) {
    const { name, isSingle, isDropped } = ruleFor(raw[i] as string);
    if (name.charCodeAt(0) === 0x3a /* : of HTTP/2 */) continue;
    const value = raw[i + 1] as string;
    if (isDropped && dropped === nothing) dropped = Object.create(null);
    const target = isDropped ? dropped : headers;
    const before = target[name];
    if (before === undefined) target[name] = value;
    else if (isSingle) throw badRequest('header-repeated', `the header ${name} stands more than once`);
    else target[name] = `${before}${name === 'cookie' ? '; ' : ', '}${value}`;
  }
  if (headers['content-length'] !== undefined && dropped['transfer-encoding'] !== undefined) {
    // RFC 9112 section 6.3: the oldest way to hide a second request.
    throw badRequest('framing-ambiguous', 'Content-Length and Transfer-Encoding exclude each other');
  }
  const { upgrade, connection } = dropped;
  const { host } = headers;
  if (connection !== undefined) for (const name of namedBy(connection)) delete headers[name];
  return { headers, host, forwardedFor: dropped['x-forwarded-for'], upgrade };
}

const nothing: Record<string, string> = Object.freeze(Object.create(null));

/** What is to be done with a header, by its name alone. */
interface HeaderRule {
  /** Lower-case. */
  readonly name: string;
  readonly isSingle: boolean;
  /** Handlers and upstreams do not see it. */
  readonly isDropped: boolean;
}

const rules = new Map<string, HeaderRule>();
const MAX_RULES = 512;
const MAX_REMEMBERED_NAME_LENGTH = 64;

/** Names repeat from request to request. They are the client's choice: a bounded number of them is remembered. */
function ruleFor(raw: string): HeaderRule {
  const known = rules.get(raw);
  if (known) return known;
  const name = raw.toLowerCase();
  const rule = { name, isSingle: SINGLE.has(name), isDropped: HOP_BY_HOP.has(name) || isSpoofable(name) };
  if (rules.size < MAX_RULES && raw.length <= MAX_REMEMBERED_NAME_LENGTH) rules.set(raw, rule);
  return rule;
}

/** Whether a client may not send it, because services would take it for the word of the gateway. */
export function isSpoofable(name: string): boolean {
  return name.includes('_') || SPOOFABLE.test(name);
}

function namedBy(connection: string): string[] {
  const names = connection.split(',').map((name) => name.trim().toLowerCase());
  const wrong = names.find((name) => NEVER_HOP_BY_HOP.has(name));
  if (wrong !== undefined) throw badRequest('header-hidden', `Connection must not name ${wrong}`);
  return names;
}

function tooMany(max: number) {
  return new ProblemError({
    status: 431,
    code: 'headers-too-many',
    title: 'The request has too many headers',
    detail: `at most ${max} are taken`,
  });
}
