import { durationMs, limit, type ParsedOptions, parseOptions } from '@sallyport/core/spi';
import { z } from 'zod';

export interface ClientOptions {
  /** Time of a call that names no deadline and serves no other call, ms. Default 10,000. */
  readonly defaultDeadlineMs?: number;
  /** Time for TCP and the TLS handshake, ms. Default 5,000. */
  readonly connectTimeoutMs?: number;
  /** Size of one message either way, bytes, after decompression. Default 4 MiB. */
  readonly maxMessageBytes?: number;
  /** Silence after which the server is probed, ms. Default 30,000. */
  readonly keepaliveIntervalMs?: number;
  /** Time it has to answer, ms. Default 10,000. */
  readonly keepaliveTimeoutMs?: number;
  /** Age at which a connection is replaced, ms: bounds how long an old identity lives. Default 30 minutes. */
  readonly maxConnectionAgeMs?: number;
  /** What running calls get on a connection that a certificate rotation or its age has replaced, ms. Default 5 minutes. */
  readonly rotationGraceMs?: number;
}

export type ResolvedClientOptions = Required<ClientOptions>;

const schema = z.strictObject({
  defaultDeadlineMs: durationMs().default(10_000),
  connectTimeoutMs: durationMs().default(5000),
  maxMessageBytes: limit({ max: 256 * 1024 * 1024 }).default(4 * 1024 * 1024),
  keepaliveIntervalMs: durationMs({ min: 1000 }).default(30_000),
  keepaliveTimeoutMs: durationMs().default(10_000),
  maxConnectionAgeMs: durationMs().default(30 * 60_000),
  rotationGraceMs: durationMs().default(5 * 60_000),
});

export function parseClientOptions(options: unknown): ParsedOptions<ResolvedClientOptions> {
  return parseOptions(schema, options, 'client');
}
