import { type AdminOptions, adminSchema, type ResolvedAdminOptions } from '@sallyport/admin';
import type { Logger, Registry, TlsSource } from '@sallyport/core';
import {
  bindAddress,
  type Clock,
  durationMs,
  type Endpoint,
  limit,
  made,
  type ParsedOptions,
  parseOptions,
  serviceNameSchema,
  type Violation,
  violation,
  type WebTlsOptions,
  wildcardViolations,
} from '@sallyport/core/spi';
import { z } from 'zod';
import type { CorsOptions } from './cors.js';
import { trustedProxiesSchema } from './edge/client-address.js';
import type { RateLimitOptions } from './limits/rate-limit.js';
import { type BreakerOptions, breakerSchema, type ResolvedBreakerOptions } from './resilience/breaker.js';
import type { Route } from './routes/route.js';

/** What one gateway lets its clients take. Every limit is finite; leave a field out for its default. */
export interface GatewayLimits {
  /** Connections open at once. Default 2,000. */
  readonly maxConnections?: number;
  /** Connections open at once from one address. Default 200. */
  readonly maxConnectionsPerAddress?: number;
  /** Requests under way on one connection: streams of HTTP/2 (RFC 9113 section 5.1.2), pipelined ones of HTTP/1.1. Default 100. */
  readonly maxStreamsPerConnection?: number;
  /** Requests under way in all; the next ones wait. Default 1,000. */
  readonly maxConcurrentRequests?: number;
  /** Requests under way and waiting of one address, or one IPv6 network; the next ones are answered with 429. Default 250. */
  readonly maxRequestsPerAddress?: number;
  /** Requests that wait for that; the next ones are answered with 503. Default 1,000. */
  readonly maxQueuedRequests?: number;
  /** Size of the header section, bytes. Default 16 KiB. */
  readonly maxHeaderBytes?: number;
  /** Number of headers. Default 100. */
  readonly maxHeaders?: number;
  /** Length of path and query, bytes. Default 4 KiB. */
  readonly maxTargetBytes?: number;
  /** Size of a body, bytes. Default 1 MiB. */
  readonly maxBodyBytes?: number;
  /** Nesting of objects and arrays in a JSON body. Default 32. */
  readonly maxJsonDepth?: number;
  /** Keys and elements in a JSON body. Default 10,000. */
  readonly maxJsonKeys?: number;
  /** Time for the TLS handshake, ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number;
  /** Time for the header section of a request, ms. Default 5,000. */
  readonly headersTimeoutMs?: number;
  /** Time for the body of a request, ms; a stream of messages has the limits of streams. Default 10,000. */
  readonly bodyTimeoutMs?: number;
  /** Time a service has to answer, ms. Default 15,000. */
  readonly upstreamTimeoutMs?: number;
  /** Time for a request as a whole, its turn in the queue included, ms; streams are exempt once they have begun. Default 30,000. */
  readonly requestTimeoutMs?: number;
  /** A connection without requests is closed after it, ms. Default 60,000. */
  readonly idleTimeoutMs?: number;
  /** Size of all messages of one stream in one direction, bytes. Default 64 MiB. */
  readonly maxStreamBytes?: number;
  /** Time for a stream as a whole, ms. Default 1 hour. */
  readonly streamTimeoutMs?: number;
  /** How long the client of a stream may take nothing, or send no whole message, ms. Default 30,000. */
  readonly streamIdleTimeoutMs?: number;
  /** How often a silent event stream or WebSocket shows that it is alive, ms. Default 15,000. */
  readonly heartbeatMs?: number;
}

export interface GatewayOptions {
  /** Name in events and in the registry. Default `gateway`. */
  readonly name?: string;
  /** `host:port` to listen on; port 0 picks a free one. */
  readonly listen: string;
  /** Names the reason for listening on every interface; refused without it. Needs `advertise`. */
  readonly allowWildcardBind?: { readonly reason: string };
  /** `host:port` under which clients reach it, where it differs from `listen`. */
  readonly advertise?: string;
  /** The certificates that clients see, and the CA of theirs. */
  readonly tls: WebTlsOptions;
  /** Host names that are served, each covered by a certificate. Left out: every name that the certificates cover. */
  readonly hosts?: readonly string[];
  /** Who the gateway is for the services behind it: its SPIFFE identity. */
  readonly identity: TlsSource;
  /** Where the services are found. */
  readonly registry: Registry;
  /** All that can be reached. What is not listed is 404. */
  readonly routes: readonly Route[];
  /** Claims of a user that services are told beside subject, issuer and scopes, e.g. `email`. Default none. */
  readonly userClaims?: readonly string[];
  /** Which pages of other origins may call. Left out: none. */
  readonly cors?: CorsOptions;
  /** Proxies in front of the gateway whose `X-Forwarded-For` is believed, e.g. `10.1.0.0/16`. Left out: none. */
  readonly trustedProxies?: readonly string[];
  readonly limits?: GatewayLimits;
  /** Quotas of requests. Left out: none. */
  readonly rateLimit?: readonly RateLimitOptions[];
  /** When a service gets no calls for a while. Left out: its defaults; there is always one. */
  readonly breaker?: BreakerOptions;
  /** Health, readiness, metrics and the description of the routes, in clear text for this machine alone. Left out: nowhere. */
  readonly admin?: AdminOptions;
  readonly drain?: {
    /** Time for clients to learn that this gateway drains, ms. Default 500. */
    readonly spreadMs?: number;
    /** Time for running requests to finish after that, ms. Default 10,000. */
    readonly graceMs?: number;
  };
  /** Default: readable lines on stderr. */
  readonly logger?: Logger;
  /** For tests. */
  readonly clock?: Clock;
}

/** What may change while the gateway runs. All else is what it was started with. */
export type GatewayChanges = Pick<GatewayOptions, 'routes' | 'cors' | 'hosts' | 'trustedProxies' | 'rateLimit'>;

export type ResolvedLimits = Required<GatewayLimits>;

export interface ResolvedGatewayOptions {
  readonly name: string;
  readonly listen: Endpoint;
  readonly advertise: Endpoint | undefined;
  readonly allowWildcardBind: { readonly reason: string } | undefined;
  readonly hosts: readonly string[] | undefined;
  readonly identity: TlsSource;
  readonly registry: Registry;
  readonly routes: readonly Route[];
  readonly userClaims: readonly string[];
  readonly trustedProxies: readonly string[];
  readonly limits: ResolvedLimits;
  readonly breaker: ResolvedBreakerOptions;
  readonly admin: ResolvedAdminOptions | undefined;
  readonly drain: { readonly spreadMs: number; readonly graceMs: number };
}

export interface ParsedGatewayOptions extends ParsedOptions<ResolvedGatewayOptions> {
  /** What can be used even when other options were refused. */
  readonly given: Partial<GatewayOptions>;
}

const KIB = 1024;

export const limitsSchema = z.strictObject({
  maxConnections: limit({ max: 100_000 }).default(2000),
  maxConnectionsPerAddress: limit({ max: 100_000 }).default(200),
  maxStreamsPerConnection: limit({ max: 10_000 }).default(100),
  maxConcurrentRequests: limit({ max: 100_000 }).default(1000),
  maxRequestsPerAddress: limit({ max: 100_000 }).default(250),
  maxQueuedRequests: limit({ max: 100_000 }).default(1000),
  maxHeaderBytes: limit({ max: 64 * KIB }).default(16 * KIB),
  maxHeaders: limit({ max: 500 }).default(100),
  maxTargetBytes: limit({ max: 16 * KIB }).default(4 * KIB),
  maxBodyBytes: limit({ max: 256 * KIB * KIB }).default(KIB * KIB),
  maxJsonDepth: limit({ max: 256 }).default(32),
  maxJsonKeys: limit({ max: 1_000_000 }).default(10_000),
  handshakeTimeoutMs: durationMs().default(5000),
  headersTimeoutMs: durationMs().default(5000),
  bodyTimeoutMs: durationMs().default(10_000),
  upstreamTimeoutMs: durationMs().default(15_000),
  requestTimeoutMs: durationMs().default(30_000),
  idleTimeoutMs: durationMs().default(60_000),
  maxStreamBytes: limit({ max: 1024 * KIB * KIB * KIB }).default(64 * KIB * KIB),
  streamTimeoutMs: durationMs().default(3_600_000),
  streamIdleTimeoutMs: durationMs().default(30_000),
  heartbeatMs: durationMs({ min: 10 }).default(15_000),
});

const hostName = z
  .string()
  .refine((text) => /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(text), 'expected a lower-case host name without port');

const schema = z.strictObject({
  name: serviceNameSchema.default('gateway'),
  listen: bindAddress(),
  advertise: bindAddress().optional(),
  allowWildcardBind: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
  // Checked by itself: its violations need the files.
  tls: z.unknown(),
  hosts: z.array(hostName).min(1).optional(),
  identity: made<TlsSource>('a source of certificates, e.g. tls.fromFiles({...})', 'check', 'open'),
  registry: made<Registry>('a registry, e.g. registry.consul({...})', 'check', 'open'),
  routes: z.array(
    z.custom<Route>((value) => typeof value === 'object' && value !== null && 'kind' in value, 'expected route(...)'),
  ),
  userClaims: z.array(z.string().min(1).max(200)).max(50).default([]),
  // Checked by itself, together with what the routes say about it.
  cors: z.unknown().optional(),
  trustedProxies: trustedProxiesSchema.default([]),
  limits: limitsSchema.prefault({}),
  // Checked by itself, together with what the routes say about it.
  rateLimit: z.unknown().optional(),
  breaker: breakerSchema.prefault({}),
  admin: adminSchema.optional(),
  drain: z
    .strictObject({
      spreadMs: z.number().int().min(0).max(600_000).default(500),
      graceMs: durationMs().default(10_000),
    })
    .prefault({}),
  logger: made<Logger>(
    'an object with debug(), info(), warn() and error()',
    'debug',
    'info',
    'warn',
    'error',
  ).optional(),
  clock: made<Clock>('a clock with now() and after()', 'now', 'after').optional(),
});

export function parseGatewayOptions(options: unknown): ParsedGatewayOptions {
  const given = (options ?? {}) as Partial<GatewayOptions>;
  const { value, violations } = parseOptions(schema, options, 'gateway');
  const all: Violation[] = [...violations, ...wildcardViolations(options, 'gateway', 'listen')].map((found) =>
    found.id === 'option-missing' && found.path === 'gateway.registry'
      ? violation('registry-missing', found.path)
      : found,
  );
  return { value: all.length > 0 ? undefined : (value as ResolvedGatewayOptions), violations: all, given };
}

/** What `changes` leave out has its default again, not its old value. */
export function withChanges(given: Partial<GatewayOptions>, changes: GatewayChanges): GatewayOptions {
  const kept = { ...given };
  for (const name of ['routes', 'cors', 'hosts', 'trustedProxies', 'rateLimit'] as const) delete kept[name];
  return { ...kept, ...changes } as GatewayOptions;
}
