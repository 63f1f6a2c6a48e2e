import {
  bindAddress,
  durationMs,
  type Endpoint,
  limit,
  type Networks,
  type ParsedOptions,
  parseOptions,
  wildcardViolations,
} from '@sallyport/core/spi';
import { z } from 'zod';

/** What one server lets its callers take. Every limit is finite; leave a field out for its default. */
export interface ServerLimits {
  /** Connections open at once, handshakes under way included. Default 1,000. */
  readonly maxConnections?: number;
  /** Connections open at once of one identity. Default 100. */
  readonly maxConnectionsPerPeer?: number;
  /** Calls under way on one connection (RFC 9113 §5.1.2). Default 256. */
  readonly maxConcurrentCalls?: number;
  /** Size of one message either way, bytes, after decompression. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Size of a call's metadata, bytes. Default 16 KiB. */
  readonly maxMetadataBytes?: number;
  /** Number of a call's metadata entries. Default 100. */
  readonly maxMetadataEntries?: number;
  /** Time a peer has for the TLS handshake, ms. Default 5,000. */
  readonly handshakeTimeoutMs?: number;
  /** A connection without calls is closed after it, ms. Default 5 minutes. */
  readonly idleTimeoutMs?: number;
  /** Age at which a connection is asked to reconnect, ms: bounds how long an old identity lives. Default 30 minutes. */
  readonly maxConnectionAgeMs?: number;
  /** What running calls get after that before they are ended, and calls that cross the goodbye of an idle server, ms. Default 1 minute. */
  readonly maxConnectionAgeGraceMs?: number;
  /** Silence after which a peer is probed (RFC 9113 §6.7), ms. Default 30,000. */
  readonly keepaliveIntervalMs?: number;
  /** Time it has to answer, ms. Default 10,000. */
  readonly keepaliveTimeoutMs?: number;
  /** Longest time a unary call without a deadline may take, ms. Default 60,000. */
  readonly unaryDeadlineMs?: number;
}

export interface ServerOptions {
  /** `host:port` to listen on; port 0 picks a free one. Default `127.0.0.1:0`. */
  readonly address?: string;
  /** `host:port` that others dial, where it differs from the bound address. Port 0 stands for the bound port. */
  readonly advertise?: string;
  /** Client certificates are always required; `true` only says so. */
  readonly requireClientCert?: true;
  /** Names the reason for listening on every interface (`0.0.0.0` or `::`); refused without it. Needs `advertise`. The reason
   * stands in the log. */
  readonly allowWildcardBind?: { readonly reason: string };
  readonly limits?: ServerLimits;
}

export type ResolvedServerLimits = Required<ServerLimits>;

export interface ResolvedServerOptions {
  readonly address: Endpoint;
  readonly advertise: Endpoint | undefined;
  readonly allowWildcardBind: { readonly reason: string } | undefined;
  /** Of balancers that begin each connection with a PROXY v2 header. Left out: there are none. */
  readonly balancers?: Networks | undefined;
  readonly limits: ResolvedServerLimits;
}

const MINUTE = 60_000;

const limits = z.strictObject({
  maxConnections: limit().default(1000),
  maxConnectionsPerPeer: limit().default(100),
  maxConcurrentCalls: limit({ max: 100_000 }).default(256),
  maxMessageBytes: limit({ max: 256 * 1024 * 1024 }).default(4 * 1024 * 1024),
  maxMetadataBytes: limit({ max: 64 * 1024 }).default(16 * 1024),
  maxMetadataEntries: limit({ max: 128 }).default(100),
  handshakeTimeoutMs: durationMs().default(5000),
  idleTimeoutMs: durationMs().default(5 * MINUTE),
  maxConnectionAgeMs: durationMs().default(30 * MINUTE),
  maxConnectionAgeGraceMs: durationMs().default(MINUTE),
  keepaliveIntervalMs: durationMs().default(30_000),
  keepaliveTimeoutMs: durationMs().default(10_000),
  unaryDeadlineMs: durationMs().default(MINUTE),
});

const schema = z.strictObject({
  address: bindAddress().prefault('127.0.0.1:0'),
  advertise: bindAddress().optional(),
  requireClientCert: z.literal(true).optional(),
  allowWildcardBind: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
  limits: limits.prefault({}),
});

export function parseServerOptions(options: unknown): ParsedOptions<ResolvedServerOptions> {
  const parsed = parseOptions(schema, options, 'server') as ParsedOptions<ResolvedServerOptions>;
  const violations = [...parsed.violations, ...wildcardViolations(options, 'server')];
  return violations.length > 0 ? { value: undefined, violations } : parsed;
}
