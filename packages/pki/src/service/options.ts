import { isIP } from 'node:net';
import type { Logger, Rule, RuleDocument, RuleSource } from '@sallyport/core';
import {
  type Clock,
  durationMs,
  isSecret,
  isWildcard,
  limit,
  type ParsedOptions,
  parseOptions,
  toRuleSource,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { z } from 'zod';
import type { AuthorityMaterial } from './issuers.js';

export interface AuthorityServiceOptions {
  readonly authority: AuthorityMaterial;
  /** Folder that only the user of the process may enter; made if there is none. One process at a time has it open. */
  readonly store: string;
  readonly listen: {
    /** `ip:port` of the enrolment door, for those who have a join token and no certificate yet. Port 0 picks a free one. */
    readonly enrolment: string;
    /** `ip:port` of the door for everything else, which asks for a live certificate. Port 0 picks a free one. */
    readonly address: string;
    /** Host under which workloads reach `address`. Left out: the one under which they have reached the enrolment door. */
    readonly host?: string;
    /** Names the reason for listening on every interface (`0.0.0.0` or `::`); refused without it. */
    readonly allowWildcardBind?: { readonly reason: string };
  };
  /** Who may revoke and make join tokens: rules over `sallyport.pki.v1.Authority/Revoke` and `…/CreateJoinToken`. An empty list: nobody. */
  readonly authorize: RuleSource | RuleDocument | readonly Rule[];
  /** Life of a leaf, ms; none outlives its issuer. Default one hour. */
  readonly leafTtlMs?: number;
  readonly crl?: {
    /** After it a list counts as missing, and its readers let nobody in, ms. Default 24 h. */
    readonly validityMs?: number;
    /** How often new ones are signed when nothing happens, ms; at most half of the validity. Default one hour. */
    readonly intervalMs?: number;
  };
  readonly limits?: AuthorityLimits;
  /** Left out: lines on standard error. `silentLogger`: nothing. */
  readonly logger?: Logger;
  /** For tests. */
  readonly clock?: Clock;
}

/** Every limit is finite; leave a field out for its default. */
export interface AuthorityLimits {
  /** Enrolments of everybody together, a second, and as many renewals. Default 200. */
  readonly requestsPerSecond?: number;
  /** Requests of one address (IPv6: one /64) at the enrolment door, a minute. Default 120. */
  readonly perAddressPerMinute?: number;
  /** Attempts with one join token, a minute. Default 10. */
  readonly perTokenPerMinute?: number;
  /** Requests of one identity, whatever it asks for, a minute. Default 120. */
  readonly perIdentityPerMinute?: number;
  /** Join tokens that are neither used nor expired. Default 10,000. */
  readonly maxJoinTokens?: number;
  /** Certificates that live. Default 250,000. */
  readonly maxCertificates?: number;
  /** Connections of each door. Default 2,000. */
  readonly maxConnections?: number;
  /** Connections of one identity, or of one address at the enrolment door. Default 100. */
  readonly maxConnectionsPerPeer?: number;
  /** Default 5,000. */
  readonly handshakeTimeoutMs?: number;
  /** From the first byte of a request to its last, ms. Default 10,000. */
  readonly requestTimeoutMs?: number;
}

export type ResolvedAuthorityLimits = Required<AuthorityLimits>;

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface ResolvedAuthorityOptions {
  readonly authority: AuthorityMaterial;
  readonly store: string;
  readonly listen: {
    readonly enrolment: ListenAddress;
    readonly address: ListenAddress;
    readonly host?: string;
    readonly allowWildcardBind?: { readonly reason: string };
  };
  readonly leafTtlMs: number;
  readonly crl: { readonly validityMs: number; readonly intervalMs: number };
  readonly limits: ResolvedAuthorityLimits;
  readonly logger?: Logger;
  readonly clock?: Clock;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

const path = z.string().min(1);
const logger = z.custom<Logger>(
  (value) => typeof (value as Logger | null)?.info === 'function',
  'expected an object with debug(), info(), warn() and error()',
);
const passphrase = z.custom((value) => isSecret(value), { params: { violation: 'secret-literal' } });
const signer = z.custom(
  (value) => typeof (value as { sign?: unknown } | null)?.sign === 'function',
  'expected a signer, with publicKey and sign()',
);
const issuer = z.union([
  z.strictObject({ certificate: path, key: path, passphrase }),
  z.strictObject({ certificate: path, signer }),
]);

export const materialSchema = z.strictObject({
  issuer,
  retiring: z.array(issuer).max(8).optional(),
  roots: path,
  rootLists: z.array(path).min(1).max(16),
}) as unknown as z.ZodType<AuthorityMaterial>;

const address = z.string().transform((text, context) => {
  const [, v6, v4, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = v6 ?? v4 ?? '';
  if (isIP(host) !== 0 && Number(port) <= 65_535) return { host, port: Number(port) };
  context.addIssue({ code: 'custom', message: 'expected ip:port, e.g. 10.0.0.5:8443 or [::1]:0' });
  return z.NEVER;
});

const schema = z.strictObject({
  authority: materialSchema,
  store: path,
  listen: z.strictObject({
    enrolment: address,
    address,
    host: z.string().min(1).max(253).optional(),
    allowWildcardBind: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
  }),
  // A part of its own: its source checks it.
  authorize: z.custom<AuthorityServiceOptions['authorize']>().optional(),
  leafTtlMs: durationMs({ min: 2000, max: 7 * 24 * HOUR_MS }).default(HOUR_MS),
  crl: z
    .strictObject({
      validityMs: durationMs({ min: 2000 }).default(24 * HOUR_MS),
      intervalMs: durationMs({ min: 500 }).default(HOUR_MS),
    })
    .refine(({ validityMs, intervalMs }) => intervalMs * 2 <= validityMs, {
      path: ['intervalMs'],
      error: 'lists must be renewed before half of their validity is over',
    })
    .prefault({}),
  limits: z
    .strictObject({
      requestsPerSecond: limit({ max: 100_000 }).default(200),
      perAddressPerMinute: limit().default(120),
      perTokenPerMinute: limit().default(10),
      perIdentityPerMinute: limit().default(120),
      maxJoinTokens: limit({ max: 1_000_000 }).default(10_000),
      maxCertificates: limit({ max: 5_000_000 }).default(250_000),
      maxConnections: limit().default(2000),
      maxConnectionsPerPeer: limit().default(100),
      handshakeTimeoutMs: durationMs().default(5000),
      requestTimeoutMs: durationMs().default(10_000),
    })
    .prefault({}),
  logger: logger.optional(),
  clock: z.custom<Clock>((value) => typeof (value as Clock | null)?.now === 'function', 'expected a clock').optional(),
});

export interface ParsedAuthorityOptions extends ParsedOptions<ResolvedAuthorityOptions> {
  readonly rules: RuleSource;
  /** Where to report, even when other options were refused. */
  readonly logger: Logger | undefined;
}

/** Never throws. */
export function parseAuthorityOptions(options: unknown): ParsedAuthorityOptions {
  const given = (options ?? {}) as Partial<AuthorityServiceOptions>;
  const { value, violations } = parseOptions(schema, options, 'authorityService');
  const found = [...violations, ...wildcardViolations(value?.listen)];
  return {
    value: found.length > 0 ? undefined : (value as ResolvedAuthorityOptions | undefined),
    violations: found,
    logger: logger.safeParse(given.logger).data,
    rules: toRuleSource(given.authorize, 'authorityService.authorize'),
  };
}

function wildcardViolations(listen: z.output<typeof schema>['listen'] | undefined): Violation[] {
  if (listen === undefined || listen.allowWildcardBind) return [];
  return (['enrolment', 'address'] as const).flatMap((door) =>
    isWildcard(listen[door].host) ? [violation('server-wildcard-bind', `authorityService.listen.${door}`)] : [],
  );
}
