import { parseSpiffeId, type Secret, type TlsSource, type ViolationId } from '@sallyport/core';
import {
  durationMs,
  isSecret,
  limit,
  type ParsedOptions,
  parseOptions,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { z } from 'zod';

/** Reads of the catalogue: see Consul's documentation of consistency modes. */
export type Consistency = 'default' | 'consistent' | 'stale';

export interface ConsulRegistryOptions {
  /** Of a Consul agent or server: `https://127.0.0.1:8501`. Its certificate must name this host. */
  readonly address: string;
  /** The connection is encrypted and both sides are authenticated. There is no other way; said aloud. */
  readonly secure: true;
  /** Certificate, key and CA bundle for the connection to Consul, as a rule those of the service itself. */
  readonly tls: TlsSource;
  /** ACL token of this service alone, e.g. `secret.env('CONSUL_HTTP_TOKEN')`. Read again every `tokenRefreshMs`. */
  readonly token: Secret;
  /** SPIFFE ID that the certificate of Consul must have beside the host name. Left out: the host name is enough. */
  readonly identity?: string;
  /** Where instances are looked for. Left out: the agent's own datacenter. Instances are registered with the agent itself. */
  readonly datacenter?: string;
  /** Consul Enterprise only. Left out: the token's own namespace. */
  readonly namespace?: string;
  /** Default `default`: the leader answers, and may be wrong for a moment while it loses an election. */
  readonly consistency?: Consistency;
  readonly timeouts?: ConsulTimeouts;
  readonly retry?: ConsulRetry;
  readonly healthCheck?: ConsulHealthCheck;
  /** Tags of the own instances, for other programs that read Consul. Default: none. */
  readonly tags?: readonly string[];
  /** Meta of the own instances beside that of Sallyport, for other programs that read Consul. Default: none. */
  readonly meta?: Readonly<Record<string, string>>;
  /** How long the last instances are kept when all disappear at once after Consul was away, ms. Default 30,000. */
  readonly emptyGraceMs?: number;
  /** Time between two looks at the token, ms. Default 10,000; a token that is refused is read again at once. */
  readonly tokenRefreshMs?: number;
  /** The longest answer that is read, bytes. Default 64 MiB, enough for 10,000 instances. */
  readonly maxBodyBytes?: number;
  /** Uses a token that can do more than a service needs, for a reason that is logged at each start. */
  readonly allowManagementToken?: { readonly reason: string };
}

export interface ConsulTimeouts {
  /** One request, ms. Default 2,500. */
  readonly requestMs?: number;
  /** Registering and the like with all retries, ms. Default 5,000. */
  readonly operationMs?: number;
  /** How long Consul may hold a query until something changes, ms. Default 30,000; Consul adds up to a sixteenth. */
  readonly waitMs?: number;
}

export interface ConsulRetry {
  /** After the first failure, ms. Default 100. Doubles with each, and is jittered. */
  readonly firstMs?: number;
  /** The longest, ms. Default 1,000: that is how soon one is up to date after Consul has come back. */
  readonly maxMs?: number;
}

export interface ConsulHealthCheck {
  /** After this time without a heartbeat the instance is not listed any more, ms. At least 1,000; default 15,000. */
  readonly ttlMs?: number;
  /** Time between two heartbeats, ms, at most half of `ttlMs`. Default: a third of it. */
  readonly heartbeatMs?: number;
  /** After this time without a heartbeat Consul forgets the instance, ms. Consul's minimum is the default, 60,000. */
  readonly deregisterAfterMs?: number;
  /** Consul connects to the instance as well. It has no certificate, so that each attempt shows as a refused handshake. */
  readonly tcp?: ConsulProbe;
  /** Consul asks this `https://` address as well, e.g. a health page beside the service. */
  readonly http?: ConsulProbe & { readonly url: string };
  /** Consul asks the gRPC health service of the instance; its agents need `enable_agent_tls_for_checks`. */
  readonly grpc?: ConsulProbe;
}

export interface ConsulProbe {
  /** Default 10,000. */
  readonly intervalMs?: number;
  /** Default 2,000. */
  readonly timeoutMs?: number;
}

const probe = {
  intervalMs: durationMs({ min: 1000 }).default(10_000),
  timeoutMs: durationMs({ min: 100 }).default(2000),
};

const meta = z
  .record(
    z
      .string()
      .regex(/^(?!consul-|sallyport-|app-)[A-Za-z0-9_-]{1,128}$/, 'a key that Consul or Sallyport keeps for itself'),
    z.string().refine((value) => Buffer.byteLength(value) <= 512, 'longer than 512 bytes'),
  )
  .refine((entries) => Object.keys(entries).length <= 32, 'more than 32 keys');

const healthCheck = z
  .strictObject({
    ttlMs: durationMs({ min: 1000, max: 3_600_000 }).default(15_000),
    heartbeatMs: durationMs({ min: 100 }).optional(),
    deregisterAfterMs: durationMs({ min: 60_000 }).default(60_000),
    tcp: z.strictObject(probe).optional(),
    http: z
      .strictObject({ ...probe, url: z.url({ protocol: /^https$/, error: 'expected an https:// address' }) })
      .optional(),
    grpc: z.strictObject(probe).optional(),
  })
  .refine(({ ttlMs, heartbeatMs = 0 }) => heartbeatMs <= ttlMs / 2, {
    path: ['heartbeatMs'],
    error: 'at most half of ttlMs, so that one late heartbeat is not the end',
  })
  .transform((check) => ({ ...check, heartbeatMs: check.heartbeatMs ?? Math.floor(check.ttlMs / 3) }));

const label = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'not 1 to 64 of A-Z, a-z, 0-9, "_" and "-"');

const schema = z.strictObject({
  address: z.string().superRefine(checkAddress),
  secure: z.custom<true>((value) => value === true, {
    params: { violation: 'registry-insecure' },
    error: 'secure: true is missing',
  }),
  tls: z.custom<TlsSource>((value) => typeof (value as TlsSource | undefined)?.open === 'function', {
    params: { violation: 'tls-missing' },
    error:
      'without a certificate and a CA bundle nobody can be authenticated; pass tls: tls.fromFiles({ cert, key, ca })',
  }),
  token: z.custom<Secret>(isSecret, { params: { violation: 'registry-anonymous' }, error: 'there is no ACL token' }),
  identity: z.string().transform(toSpiffeId).optional(),
  datacenter: label.optional(),
  namespace: label.optional(),
  consistency: z.enum(['default', 'consistent', 'stale']).default('default'),
  timeouts: z
    .strictObject({
      requestMs: durationMs({ min: 100, max: 600_000 }).default(2500),
      operationMs: durationMs({ min: 100, max: 600_000 }).default(5000),
      waitMs: durationMs({ min: 1000, max: 600_000 }).default(30_000),
    })
    .prefault({}),
  retry: z
    .strictObject({
      firstMs: durationMs({ max: 60_000 }).default(100),
      maxMs: durationMs({ max: 600_000 }).default(1000),
    })
    .prefault({}),
  healthCheck: healthCheck.prefault({}),
  tags: z.array(z.string().min(1).max(255)).max(64).default([]),
  meta: meta.default({}),
  emptyGraceMs: durationMs({ max: 3_600_000 }).default(30_000),
  tokenRefreshMs: durationMs({ min: 100 }).default(10_000),
  maxBodyBytes: limit({ min: 1024 }).default(64 * 1024 * 1024),
  allowManagementToken: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
});

export type ResolvedOptions = z.output<typeof schema>;

export function parseConsulOptions(options: unknown, path: string): ParsedOptions<ResolvedOptions> {
  const { value, violations } = parseOptions(schema, options, path);
  return { value, violations: violations.map((found) => named(found, path)) };
}

/** A password in the address has a name of its own. */
function named(found: Violation, path: string): Violation {
  return found.id === 'secret-literal' && found.path === `${path}.address`
    ? violation('registry-url-credentials', found.path)
    : found;
}

function checkAddress(text: string, context: z.RefinementCtx): void {
  const [id, message] = addressProblem(text) ?? [];
  if (id !== undefined) context.addIssue({ code: 'custom', message, params: { violation: id } });
}

function addressProblem(text: string): [ViolationId, string] | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) return ['option-invalid', 'expected an address like https://127.0.0.1:8501'];
  if (url.protocol !== 'https:') return ['registry-plaintext', 'the address is not https://'];
  if (url.username !== '' || url.password !== '' || url.searchParams.has('token')) {
    return ['registry-url-credentials', 'the address holds credentials'];
  }
  if (url.pathname === '/' && url.search === '' && url.hash === '') return undefined;
  return ['option-invalid', 'expected scheme, host and port only'];
}

function toSpiffeId(text: string, context: z.RefinementCtx) {
  try {
    return parseSpiffeId(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not a SPIFFE ID' });
    return z.NEVER;
  }
}
