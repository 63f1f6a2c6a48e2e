import { type AdminOptions, adminSchema, type ResolvedAdminOptions } from '@sallyport/admin';
import type { IdentityMatcher, Logger, Registry, Rule, RuleDocument, RuleSource, TlsSource } from '@sallyport/core';
import { oneOf } from '@sallyport/core';
import {
  bindAddress,
  type Clock,
  defaultIdentityTemplate,
  durationMs,
  type Endpoint,
  endpointProblem,
  type IdentityTemplate,
  isLoopback,
  isVersion,
  type LocalAddress,
  limit,
  localAddress,
  made,
  metadataSchema,
  networkSchema,
  parseIdentityTemplate,
  parseOptions,
  serviceNameSchema,
  toRuleSource,
  type Violation,
  violation,
  wildcardViolations,
  zoneSchema,
} from '@sallyport/core/spi';
import { z } from 'zod';
import type { ListeningSockets } from './handover/listening-sockets.js';
import type { ProgramCheck } from './program.js';

export interface SidecarOptions {
  /** Name of the program in the mesh, and in the SPIFFE ID: lower-case letters, digits and `-`, at most 63 characters. */
  readonly name: string;
  /** Certificate, key and trust bundle of the program: `tls.fromFiles({...})`. */
  readonly tls: TlsSource;
  /** `host:port` where others reach the program over mutual TLS; port 0 picks a free one. Required with `inbound`. */
  readonly listen?: string;
  /** `host:port` that others dial, where it differs. Port 0 stands for the bound port. */
  readonly advertise?: string;
  /** Names the reason for listening on every interface; refused without it. Needs `advertise`. The reason stands in the log. */
  readonly allowWildcardBind?: { readonly reason: string };
  /** Balancers before the door, by address or network (`10.1.0.0/16`), which begin each connection with a header of the PROXY
   * protocol. Left out: there are none, and such a header is refused, whoever sends it. */
  readonly balancers?: { readonly proxyProtocol: 'v2'; readonly from: readonly string[] };
  /** The program. Left out: nobody can reach it through this sidecar. */
  readonly inbound?: InboundOptions;
  /** Who may reach the program; required with `inbound`. An empty list denies everybody. */
  readonly authorize?: readonly Rule[] | RuleDocument | RuleSource;
  /** Where the program reaches upstreams that speak HTTP or gRPC, by their names: `http://billing/…`. Required with such upstreams. */
  readonly outbound?: OutboundOptions;
  /** What the program may reach, by names of your own. Left out: nothing. */
  readonly upstreams?: Readonly<Record<string, UpstreamOptions>>;
  /** Where others find the program, and upstreams are found that name a service. */
  readonly registry?: Registry;
  /** Semantic version of the program, for callers that ask for one. Default `0.0.0`. */
  readonly version?: string;
  /** Published with the program, beside its `protocol`. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Failure domain of this instance; callers in the same zone prefer it. Left out: zones play no role. */
  readonly zone?: string;
  /** Share of the calls relative to other instances, 0 to 1000. Default 100. */
  readonly weight?: number;
  /** How service names become SPIFFE IDs. Default: `/svc/{service}` in the own trust domain. */
  readonly identity?: { readonly template: string; readonly values?: Readonly<Record<string, string>> };
  readonly limits?: SidecarLimits;
  /** Health, metrics, peers, certificates and the configuration in force, for this machine alone. Left out: nobody is told. */
  readonly admin?: AdminOptions;
  readonly drain?: {
    /** Time for callers to learn from the registry that the program drains, ms. Default 500. */
    readonly spreadMs?: number;
    /** Time for open connections to end by themselves, ms. Default 10,000. */
    readonly graceMs?: number;
  };
  /** Gets a line for each event; a pino logger fits. Default: readable lines on stderr. */
  readonly logger?: Logger;
  /** Listening sockets that this process has been given: `handedSockets()`. Default: all are bound anew. */
  readonly sockets?: ListeningSockets;
  /** For tests: time of ages, expiry and checks. */
  readonly clock?: Clock;
}

export type InboundOptions = TcpInboundOptions | HttpInboundOptions;

export interface TcpInboundOptions extends InboundProgram {
  /** Bytes are passed on as they come; a caller is authorized once for each connection. */
  readonly protocol: 'tcp';
  /** What rules call it: `sallyport.sidecar.v1.Tunnel/<name>`. Default `tcp`. */
  readonly name?: string;
  /** The program is told who calls by a header of the PROXY protocol before the first byte. Default: it is not told. */
  readonly proxyProtocol?: 'v2';
}

export interface HttpInboundOptions extends InboundProgram {
  /**
   * `http`: the program speaks HTTP/1.1; callers may speak HTTP/2 as well. `grpc`: it speaks gRPC, over HTTP/2 in the clear with prior
   * knowledge. Every request is authorized, and tells the program who calls in the header `x-sallyport-peer`.
   */
  readonly protocol: 'http' | 'grpc';
}

/** The program, and how to see whether it is well. */
export interface InboundProgram {
  /** Where the program listens: a loopback address or `unix:/path`. */
  readonly target: string;
  /** How to see whether the program is well. Default: somebody accepts connections there. */
  readonly check?: CheckOptions;
}

export interface CheckOptions {
  /** `tcp`: a connection is accepted. `http`: a GET is answered with 200 to 399. `grpc`: `grpc.health.v1` says SERVING. Default `tcp`. */
  readonly kind?: 'tcp' | 'http' | 'grpc';
  /** What `http` asks for. Default `/`. */
  readonly path?: string;
  /** Which service `grpc` asks for. Default: the whole server. */
  readonly service?: string;
  /** How often to look, ms. Default 2,000. */
  readonly intervalMs?: number;
  /** How long an answer may take, ms. Default 1,000. */
  readonly timeoutMs?: number;
  /** So many good looks in a row make it well. Default 1. */
  readonly healthyAfter?: number;
  /** So many bad looks in a row make it unwell; a connection that is refused counts as one. Default 1. */
  readonly unhealthyAfter?: number;
}

export interface OutboundOptions {
  /** For HTTP/1.1 and HTTP/2 in the clear: a loopback address, port 0 for a free one, or `unix:/path`. */
  readonly listen: string;
}

export type UpstreamOptions = TcpUpstreamOptions | HttpUpstreamOptions;

export interface TcpUpstreamOptions extends UpstreamServers {
  /** Bytes are passed on as they come. */
  readonly protocol: 'tcp';
  /** Where the program reaches it: a loopback address, port 0 for a free one, or `unix:/path`. */
  readonly listen: string;
}

export interface HttpUpstreamOptions extends UpstreamServers {
  /** `http`: servers that speak HTTP/2 or HTTP/1.1, as they choose by ALPN. `grpc`: servers that speak gRPC over HTTP/2. */
  readonly protocol: 'http' | 'grpc';
}

/** Who an upstream is. */
export interface UpstreamServers {
  /** Name of the service: where the registry says it is, or at `addresses`. */
  readonly service?: string;
  /** `host:port` of each of its servers; needs `service` or `identity`, which say who must answer there. */
  readonly addresses?: readonly string[];
  /** SPIFFE IDs that may answer, of one trust domain. Default: the one that follows from `service`. */
  readonly identity?: string | readonly string[];
}

/** What peers and the program may take. Every limit is finite; leave a field out for its default. */
export interface SidecarLimits {
  /** Connections from outside open at once, handshakes under way included. Default 1,000. */
  readonly maxConnections?: number;
  /** Connections open at once of one identity. Default 100. */
  readonly maxConnectionsPerPeer?: number;
  /** Connections of the program to one upstream open at once. Default 1,000. */
  readonly maxUpstreamConnections?: number;
  /** Requests of the program to one upstream under way at once. Default 1,000. */
  readonly maxUpstreamRequests?: number;
  /** Size of the headers of a request or an answer in HTTP, bytes. Default 16 KiB. */
  readonly maxHeaderBytes?: number;
  /** Number of headers of a request in HTTP. Default 100. */
  readonly maxHeaders?: number;
  /** Requests of others to the program under way at once. Default 1,000. */
  readonly maxRequests?: number;
  /** The same of one identity. Default 250. */
  readonly maxRequestsPerPeer?: number;
  /** Requests under way on one connection. Default 100. */
  readonly maxRequestsPerConnection?: number;
  /** Bytes that may wait for a slow reader, in each direction of a connection. Default 256 KiB. */
  readonly maxBufferedBytes?: number;
  /** Time a peer has for the TLS handshake, ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number;
  /** Time to reach the program, or a server of an upstream, ms. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** Time for the headers of a request in HTTP to arrive, ms. Default 10,000. */
  readonly headersTimeoutMs?: number;
  /** A request whose body does not go on is ended after it, ms. Default 30,000. */
  readonly bodyTimeoutMs?: number;
  /** A request of which nothing travels in either direction is ended after it, ms. Default 5 minutes. */
  readonly requestIdleTimeoutMs?: number;
  /** Longest time of a request with its answer, ms. Default 1 hour. */
  readonly requestTimeoutMs?: number;
  /** How often a peer in HTTP/2 is asked whether it is still there (RFC 9113 section 6.7), ms. Default 30,000. */
  readonly keepaliveIntervalMs?: number;
  /** Time it has to answer, ms. Default 10,000. */
  readonly keepaliveTimeoutMs?: number;
  /** A connection on which nothing travels is ended after it, ms. Default 60 minutes. */
  readonly idleTimeoutMs?: number;
  /** Age at which a connection must come to its end, ms. Default 12 hours; the certificates end it in any case. */
  readonly maxConnectionAgeMs?: number;
  /** What it gets after that before it is cut, ms. Default 1 minute. */
  readonly maxConnectionAgeGraceMs?: number;
}

export interface ResolvedInbound {
  readonly target: LocalAddress;
  readonly protocol: InboundOptions['protocol'];
  /** Of one by TCP. */
  readonly name: string | undefined;
  readonly proxyProtocol: 'v2' | undefined;
  readonly check: ProgramCheck;
}

export interface ResolvedUpstream {
  readonly protocol: UpstreamOptions['protocol'];
  /** Of an upstream by TCP, and only of one. */
  readonly listen: LocalAddress | undefined;
  readonly service: string | undefined;
  readonly addresses: readonly Endpoint[] | undefined;
  readonly identity: string | readonly string[] | undefined;
}

export type ResolvedLimits = Required<SidecarLimits>;

export interface ResolvedSidecarOptions
  extends Omit<
    SidecarOptions,
    'listen' | 'advertise' | 'inbound' | 'outbound' | 'upstreams' | 'limits' | 'admin' | 'drain' | 'version' | 'weight'
  > {
  readonly listen: Endpoint | undefined;
  readonly advertise: Endpoint | undefined;
  readonly inbound: ResolvedInbound | undefined;
  readonly outbound: { readonly listen: LocalAddress } | undefined;
  readonly upstreams: Readonly<Record<string, ResolvedUpstream>>;
  readonly limits: ResolvedLimits;
  readonly admin: ResolvedAdminOptions | undefined;
  readonly version: string;
  readonly weight: number;
  readonly drain: { readonly spreadMs: number; readonly graceMs: number };
}

/** A part that checks itself. */
interface Checkable {
  check(): readonly Violation[] | Promise<readonly Violation[]>;
}

export interface ParsedSidecarOptions {
  readonly value: ResolvedSidecarOptions | undefined;
  readonly template: IdentityTemplate | undefined;
  readonly violations: readonly Violation[];
  /** These even when other options were refused: where to report, whose certificate, and what checks itself. */
  readonly logger: Logger | undefined;
  readonly tls: TlsSource | undefined;
  readonly parts: readonly Checkable[];
}

const KIB = 1024;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** Both ends of a connection hold so much by themselves. */
const MIN_BUFFERED_BYTES = 64 * KIB;

/** A name of an upstream is a host name of one label, and never one that means something else already. */
const UPSTREAM_NAME = /^(?!localhost$)[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

const looks = {
  intervalMs: durationMs({ min: 10 }).default(2000),
  timeoutMs: durationMs({ min: 10 }).default(1000),
  healthyAfter: limit({ max: 100 }).default(1),
  unhealthyAfter: limit({ max: 100 }).default(1),
};
const check = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('tcp').default('tcp'), ...looks }),
  z.strictObject({
    kind: z.literal('http'),
    path: z
      .string()
      .regex(/^\/[!-~]{0,1023}$/, 'expected a path, e.g. /health')
      .default('/'),
    ...looks,
  }),
  z.strictObject({
    kind: z.literal('grpc'),
    service: z
      .string()
      .regex(/^[\w.]{0,127}$/, 'expected the name of a service, e.g. shop.v1.Orders')
      .default(''),
    ...looks,
  }),
]);

const program = { target: localAddress('sidecar-target-exposed'), check: check.prefault({}) };
const inbound = z.discriminatedUnion('protocol', [
  z.strictObject({
    ...program,
    protocol: z.literal('tcp'),
    name: z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]{0,62}$/, 'expected a name of A-Z, a-z, 0-9 and "_"')
      .default('tcp'),
    proxyProtocol: z.literal('v2').optional(),
  }),
  z.strictObject({ ...program, protocol: z.enum(['http', 'grpc']) }),
]);

const upstream = z.strictObject({
  protocol: z.enum(['tcp', 'http', 'grpc']),
  listen: localAddress('sidecar-port-exposed').optional(),
  service: serviceNameSchema.optional(),
  addresses: z.array(upstreamAddress()).min(1, 'a list of addresses holds at least one').max(64).optional(),
  identity: z.union([z.string(), z.array(z.string())]).optional(),
});

const limits = z.strictObject({
  maxConnections: limit().default(1000),
  maxConnectionsPerPeer: limit().default(100),
  maxUpstreamConnections: limit().default(1000),
  maxUpstreamRequests: limit().default(1000),
  maxHeaderBytes: limit({ min: KIB, max: 1024 * KIB }).default(16 * KIB),
  maxHeaders: limit().default(100),
  maxRequests: limit().default(1000),
  maxRequestsPerPeer: limit().default(250),
  maxRequestsPerConnection: limit().default(100),
  maxBufferedBytes: limit({ min: MIN_BUFFERED_BYTES, max: 64 * KIB * KIB }).default(256 * KIB),
  handshakeTimeoutMs: durationMs().default(5000),
  connectTimeoutMs: durationMs().default(5000),
  headersTimeoutMs: durationMs().default(10_000),
  bodyTimeoutMs: durationMs().default(30_000),
  requestIdleTimeoutMs: durationMs().default(5 * MINUTE),
  requestTimeoutMs: durationMs().default(HOUR),
  keepaliveIntervalMs: durationMs().default(30_000),
  keepaliveTimeoutMs: durationMs().default(10_000),
  idleTimeoutMs: durationMs().default(HOUR),
  maxConnectionAgeMs: durationMs().default(12 * HOUR),
  maxConnectionAgeGraceMs: durationMs().default(MINUTE),
});

const logger = made<Logger>('an object with debug(), info(), warn() and error()', 'debug', 'info', 'warn', 'error');
const source = made<TlsSource>('a source of certificates, e.g. tls.fromFiles({...})', 'check', 'open');

export const optionsSchema = z.strictObject({
  name: serviceNameSchema,
  tls: source,
  listen: bindAddress().optional(),
  advertise: bindAddress().optional(),
  allowWildcardBind: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
  balancers: z.strictObject({ proxyProtocol: z.literal('v2'), from: z.array(networkSchema).min(1).max(64) }).optional(),
  inbound: inbound.optional(),
  outbound: z.strictObject({ listen: localAddress('sidecar-port-exposed') }).optional(),
  // The rules are a part of their own: their source checks them.
  authorize: z.custom<SidecarOptions['authorize']>().optional(),
  upstreams: z
    .record(
      z.string().regex(UPSTREAM_NAME, 'an upstream is named by 1 to 63 of a-z, 0-9 and "-", and not localhost'),
      upstream,
    )
    .prefault({}),
  version: z.string().refine(isVersion, 'expected a semantic version, e.g. 1.2.0').default('0.0.0'),
  metadata: metadataSchema.optional(),
  zone: zoneSchema.min(1, 'a zone has a name; leave it out where zones are not used').optional(),
  weight: z.number().int().min(0).max(1000).default(100),
  registry: made<Registry>('a registry, e.g. registry.local({...})', 'check', 'open').optional(),
  identity: z.strictObject({ template: z.string(), values: z.record(z.string(), z.string()).optional() }).optional(),
  limits: limits.prefault({}),
  admin: adminSchema.optional(),
  drain: z.strictObject({ spreadMs: durationMs().default(500), graceMs: durationMs().default(10_000) }).prefault({}),
  logger: logger.optional(),
  sockets: made<ListeningSockets>('handedSockets()', 'listen', 'serving').optional(),
  clock: made<Clock>('a clock with now() and after()', 'now', 'after').optional(),
});

/** Never throws: what is wrong stands in `violations`, all of it. */
export function parseSidecarOptions(options: unknown): ParsedSidecarOptions {
  const given = (typeof options === 'object' && options !== null ? options : {}) as Partial<SidecarOptions>;
  const { value, violations } = parseOptions(optionsSchema, options, 'sidecar');
  const named = violations.map((found) =>
    found.id === 'option-missing' && found.path === 'sidecar.tls' ? violation('tls-missing', found.path) : found,
  );
  const template = parseTemplate(given.identity);
  if (typeof template === 'string')
    named.push(violation('identity-template-invalid', 'sidecar.identity.template', template));
  named.push(...wildcardViolations(given, 'sidecar', 'listen'), ...missingParts(given), ...upstreamViolations(given));
  return {
    value: named.length === 0 ? (value as unknown as ResolvedSidecarOptions) : undefined,
    template: typeof template === 'string' ? undefined : template,
    violations: named,
    logger: logger.safeParse(given.logger).data,
    tls: source.safeParse(given.tls).data,
    parts: partsOf(given),
  };
}

/** Who must answer for an upstream. The options have been checked. */
export function expectedIdentity(
  { identity, service }: ResolvedUpstream,
  trustDomain: string,
  template: IdentityTemplate,
): IdentityMatcher {
  if (identity !== undefined) return oneOf(typeof identity === 'string' ? [identity] : identity);
  return oneOf([template.idFor(trustDomain, service ?? '')]);
}

/** What one option demands of another. Apart from the schema, which stops short of that where any option is wrong. */
function missingParts(given: Partial<SidecarOptions>): Violation[] {
  const found: Violation[] = [];
  const missing = (path: string, problem: string) => found.push(violation('option-missing', path, problem));
  if (given.inbound !== undefined && given.listen === undefined)
    missing('sidecar.listen', 'the address at which others reach the program is required with inbound');
  if (given.listen !== undefined && given.inbound === undefined)
    missing('sidecar.inbound', 'what listens for others needs a program that they reach');
  if (given.inbound !== undefined && given.authorize === undefined)
    found.push(violation('authorization-missing', 'sidecar.authorize'));
  if (given.inbound === undefined && given.listen === undefined && entriesOf(given.upstreams).length === 0)
    found.push(violation('sidecar-upstream-implicit', 'sidecar.upstreams'));
  const byName = entriesOf(given.upstreams).filter(([, one]) => one?.protocol === 'http' || one?.protocol === 'grpc');
  if (byName.length > 0 && given.outbound === undefined)
    missing('sidecar.outbound', 'upstreams that speak HTTP or gRPC are reached at an address of their own');
  if (byName.length === 0 && given.outbound !== undefined && entriesOf(given.upstreams).length > 0)
    missing('sidecar.upstreams', 'where HTTP is listened for, an upstream that speaks it is named');
  if (given.registry === undefined && entriesOf(given.upstreams).some(([, one]) => isFollowed(one)))
    found.push(violation('registry-missing', 'sidecar.registry'));
  return found;
}

function upstreamViolations({ upstreams }: Partial<SidecarOptions>): Violation[] {
  return entriesOf(upstreams).flatMap(([name, given]) => {
    const path = `sidecar.upstreams${/^\w+$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`}`;
    const { protocol, listen, service, addresses, identity } = (given ?? {}) as Partial<TcpUpstreamOptions>;
    const found: Violation[] = [];
    if (protocol === 'tcp' && listen === undefined) {
      found.push(
        violation('option-missing', `${path}.listen`, 'the program reaches an upstream by TCP at its own port'),
      );
    }
    if (protocol !== 'tcp' && listen !== undefined) {
      found.push(
        violation('option-invalid', `${path}.listen`, 'an upstream that speaks HTTP is reached at outbound.listen'),
      );
    }
    if (service === undefined && addresses === undefined) {
      found.push(violation('option-invalid', path, 'an upstream has a service, or addresses, or both'));
    }
    if (addresses !== undefined && service === undefined && identity === undefined) {
      const fix = 'name the SPIFFE ID of the server: identity: "spiffe://..."';
      found.push(violation('identity-expectation-empty', `${path}.identity`, undefined, fix));
    }
    found.push(...identityViolations(identity, `${path}.identity`));
    return found;
  });
}

function identityViolations(identity: unknown, path: string): Violation[] {
  if (Array.isArray(identity) && identity.length === 0) return [violation('identity-expectation-empty', path)];
  const ids = typeof identity === 'string' ? [identity] : identity;
  // Of another type: the schema has found it.
  if (!Array.isArray(ids) || !ids.every((id) => typeof id === 'string')) return [];
  try {
    oneOf(ids);
    return [];
  } catch (error) {
    return [violation('option-invalid', path, (error as Error).message)];
  }
}

/** Whether the registry is asked where it is. */
function isFollowed(upstream: Partial<UpstreamOptions> | undefined): boolean {
  return upstream?.service !== undefined && upstream.addresses === undefined;
}

function entriesOf(upstreams: unknown): [string, Partial<UpstreamOptions> | undefined][] {
  return typeof upstreams === 'object' && upstreams !== null ? Object.entries(upstreams) : [];
}

/** An address of the configuration may be of this machine, where it says so itself; a name must not turn out to be. */
function upstreamAddress(): z.ZodType<Endpoint, string> {
  return bindAddress().superRefine((endpoint, context) => {
    const problem = endpoint.port === 0 ? 'the port is not 1 to 65535' : forbidden(endpoint);
    if (problem === undefined) return;
    const params = endpoint.port === 0 ? {} : { params: { violation: 'sidecar-upstream-forbidden' } };
    context.addIssue({ code: 'custom', message: problem, ...params });
  });
}

function forbidden(endpoint: Endpoint): string | undefined {
  const problem = endpointProblem(endpoint, { allowLoopback: isLoopback(endpoint.host) });
  return problem === undefined ? undefined : `it is ${problem}`;
}

function partsOf(given: Partial<SidecarOptions>): Checkable[] {
  const parts: unknown[] = [given.tls, given.registry];
  if (given.authorize !== undefined) parts.push(toRuleSource(given.authorize, 'sidecar.authorize'));
  return parts.filter((part): part is Checkable => typeof (part as Checkable | undefined)?.check === 'function');
}

function parseTemplate(identity: SidecarOptions['identity']): IdentityTemplate | string {
  try {
    return parseIdentityTemplate(identity?.template ?? defaultIdentityTemplate, identity?.values);
  } catch (error) {
    return (error as Error).message;
  }
}
