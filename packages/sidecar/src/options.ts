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
  type LocalAddress,
  limit,
  localAddress,
  made,
  parseIdentityTemplate,
  parseOptions,
  serviceNameSchema,
  toRuleSource,
  type Violation,
  violation,
  wildcardViolations,
} from '@sallyport/core/spi';
import { z } from 'zod';

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
  /** The program. Left out: nobody can reach it through this sidecar. */
  readonly inbound?: InboundOptions;
  /** Who may reach the program; required with `inbound`. An empty list denies everybody. */
  readonly authorize?: readonly Rule[] | RuleDocument | RuleSource;
  /** What the program may reach, by names of your own. Left out: nothing. */
  readonly upstreams?: Readonly<Record<string, UpstreamOptions>>;
  /** Where upstreams are found that name a service. */
  readonly registry?: Registry;
  /** How service names become SPIFFE IDs. Default: `/svc/{service}` in the own trust domain. */
  readonly identity?: { readonly template: string; readonly values?: Readonly<Record<string, string>> };
  readonly limits?: SidecarLimits;
  readonly drain?: {
    /** Time for open connections to end by themselves, ms. Default 10,000. */
    readonly graceMs?: number;
  };
  /** Gets a line for each event; a pino logger fits. Default: readable lines on stderr. */
  readonly logger?: Logger;
  /** For tests: time of ages, expiry and checks. */
  readonly clock?: Clock;
}

export interface InboundOptions {
  /** Where the program listens: a loopback address or `unix:/path`. */
  readonly target: string;
  /** `tcp`: bytes are passed on as they come; a caller is authorized once for each connection. */
  readonly protocol: 'tcp';
  /** What rules call it: `sallyport.sidecar.v1.Tunnel/<name>`. Default `tcp`. */
  readonly name?: string;
  /** The program is told who calls by a header of the PROXY protocol before the first byte. Default: it is not told. */
  readonly proxyProtocol?: 'v2';
  /** How often to look whether the program is there, ms. Default 2,000. */
  readonly checkIntervalMs?: number;
}

export interface UpstreamOptions {
  readonly protocol: 'tcp';
  /** Where the program reaches it: a loopback address, port 0 for a free one, or `unix:/path`. */
  readonly listen: string;
  /** Name of the service in the registry; either this or `addresses`. */
  readonly service?: string;
  /** `host:port` of each of its servers; needs `identity`. */
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
  /** Bytes that may wait for a slow reader, in each direction of a connection. Default 256 KiB. */
  readonly maxBufferedBytes?: number;
  /** Time a peer has for the TLS handshake, ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number;
  /** Time to reach the program, or a server of an upstream, ms. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** A connection on which nothing travels is ended after it, ms. Default 60 minutes. */
  readonly idleTimeoutMs?: number;
  /** Age at which a connection must come to its end, ms. Default 12 hours; the certificates end it in any case. */
  readonly maxConnectionAgeMs?: number;
  /** What it gets after that before it is cut, ms. Default 1 minute. */
  readonly maxConnectionAgeGraceMs?: number;
}

export interface ResolvedInbound {
  readonly target: LocalAddress;
  readonly protocol: 'tcp';
  readonly name: string;
  readonly proxyProtocol: 'v2' | undefined;
  readonly checkIntervalMs: number;
}

export interface ResolvedUpstream {
  readonly protocol: 'tcp';
  readonly listen: LocalAddress;
  readonly service: string | undefined;
  readonly addresses: readonly Endpoint[] | undefined;
  readonly identity: string | readonly string[] | undefined;
}

export type ResolvedLimits = Required<SidecarLimits>;

export interface ResolvedSidecarOptions
  extends Omit<SidecarOptions, 'listen' | 'advertise' | 'inbound' | 'upstreams' | 'limits' | 'drain'> {
  readonly listen: Endpoint | undefined;
  readonly advertise: Endpoint | undefined;
  readonly inbound: ResolvedInbound | undefined;
  readonly upstreams: Readonly<Record<string, ResolvedUpstream>>;
  readonly limits: ResolvedLimits;
  readonly drain: { readonly graceMs: number };
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
const UPSTREAM_NAME = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

const inbound = z.strictObject({
  target: localAddress('sidecar-target-exposed'),
  protocol: z.literal('tcp'),
  name: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]{0,62}$/, 'expected a name of A-Z, a-z, 0-9 and "_"')
    .default('tcp'),
  proxyProtocol: z.literal('v2').optional(),
  checkIntervalMs: durationMs({ min: 10 }).default(2000),
});

const upstream = z.strictObject({
  protocol: z.literal('tcp'),
  listen: localAddress('sidecar-port-exposed'),
  service: serviceNameSchema.optional(),
  addresses: z.array(upstreamAddress()).min(1, 'a list of addresses holds at least one').max(64).optional(),
  identity: z.union([z.string(), z.array(z.string())]).optional(),
});

const limits = z.strictObject({
  maxConnections: limit().default(1000),
  maxConnectionsPerPeer: limit().default(100),
  maxUpstreamConnections: limit().default(1000),
  maxBufferedBytes: limit({ min: MIN_BUFFERED_BYTES, max: 64 * KIB * KIB }).default(256 * KIB),
  handshakeTimeoutMs: durationMs().default(5000),
  connectTimeoutMs: durationMs().default(5000),
  idleTimeoutMs: durationMs().default(HOUR),
  maxConnectionAgeMs: durationMs().default(12 * HOUR),
  maxConnectionAgeGraceMs: durationMs().default(MINUTE),
});

const logger = made<Logger>('an object with debug(), info(), warn() and error()', 'debug', 'info', 'warn', 'error');
const source = made<TlsSource>('a source of certificates, e.g. tls.fromFiles({...})', 'check', 'open');

const schema = z.strictObject({
  name: serviceNameSchema,
  tls: source,
  listen: bindAddress().optional(),
  advertise: bindAddress().optional(),
  allowWildcardBind: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
  inbound: inbound.optional(),
  // The rules are a part of their own: their source checks them.
  authorize: z.custom<SidecarOptions['authorize']>().optional(),
  upstreams: z
    .record(z.string().regex(UPSTREAM_NAME, 'an upstream is named by 1 to 63 of a-z, 0-9 and "-"'), upstream)
    .prefault({}),
  registry: made<Registry>('a registry, e.g. registry.local({...})', 'check', 'open').optional(),
  identity: z.strictObject({ template: z.string(), values: z.record(z.string(), z.string()).optional() }).optional(),
  limits: limits.prefault({}),
  drain: z.strictObject({ graceMs: durationMs().default(10_000) }).prefault({}),
  logger: logger.optional(),
  clock: made<Clock>('a clock with now() and after()', 'now', 'after').optional(),
});

/** Never throws: what is wrong stands in `violations`, all of it. */
export function parseSidecarOptions(options: unknown): ParsedSidecarOptions {
  const given = (typeof options === 'object' && options !== null ? options : {}) as Partial<SidecarOptions>;
  const { value, violations } = parseOptions(schema, options, 'sidecar');
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
    missing('sidecar.inbound', 'a sidecar has a program that others reach (inbound), or upstreams, or both');
  if (given.registry === undefined && entriesOf(given.upstreams).some(([, one]) => one?.service !== undefined))
    found.push(violation('registry-missing', 'sidecar.registry'));
  return found;
}

function upstreamViolations({ upstreams }: Partial<SidecarOptions>): Violation[] {
  return entriesOf(upstreams).flatMap(([name, given]) => {
    const path = `sidecar.upstreams${/^\w+$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`}`;
    const { service, addresses, identity } = given ?? {};
    const found: Violation[] = [];
    if ((service === undefined) === (addresses === undefined)) {
      found.push(violation('option-invalid', path, 'an upstream has either a service or addresses'));
    }
    if (addresses !== undefined && identity === undefined) {
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
