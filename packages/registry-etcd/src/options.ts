import { exactly, type IdentityMatcher, parseSpiffeId, type Secret, type TlsSource } from '@sallyport/core';
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
import { type EtcdEndpoint, endpointOf } from './endpoint.js';

export interface EtcdRegistryOptions {
  /** `https://host:port` of one or more members of one cluster; all must be `https:`. The port defaults to 2379. */
  readonly endpoints: readonly string[];
  /** There is no plaintext mode: said aloud, so that nobody has to wonder. */
  readonly secure: true;
  /**
   * Certificate, key and CA for the connection. Without `auth` the certificate is the credential: etcd takes its common
   * name for the user. A rotated certificate is taken over without a gap.
   */
  readonly tls: TlsSource;
  /** User and password. Left out: the certificate's common name is the user. The password is read anew for each login. */
  readonly auth?: { readonly username: string; readonly password: Secret };
  /** The first segment of all keys. Default `sallyport`. */
  readonly root?: string;
  /** SPIFFE ID that every member of the cluster must present, beside a certificate for its host name. Left out: the name alone. */
  readonly identity?: string;
  /** How long an instance is listed after its last heartbeat, which comes every third of it. 3,000 to 3,600,000; default 15,000. */
  readonly leaseTtlMs?: number;
  /** Records an answer to a list may hold; longer lists come in pages. 1 to 1,000; default 500. */
  readonly pageSize?: number;
  /** How long instances stay known that vanished with all others, or with the data of the registry. Default 30,000. */
  readonly emptyGraceMs?: number;
  readonly timeouts?: EtcdTimeouts;
  readonly retry?: EtcdRetry;
  /** Lets a credential pass that may do more than one service needs, such as root. The reason appears in an event. */
  readonly allowRootUser?: { readonly reason: string };
}

export interface EtcdTimeouts {
  /** For one TLS handshake. Default 3,000. */
  readonly handshakeMs?: number;
  /** For one request, the connection included. Default 5,000. */
  readonly requestMs?: number;
  /** Time between two pings on an idle connection; etcd refuses less than 5,000. Default 10,000. */
  readonly keepaliveIntervalMs?: number;
  /** A ping without answer for so long ends the connection. Default 3,000. */
  readonly keepaliveTimeoutMs?: number;
  /** For withdrawing what is registered when the session closes; what is not withdrawn expires. Default 3,000. */
  readonly closeMs?: number;
}

export interface EtcdRetry {
  /** How long a list or a registration is tried again, on all endpoints in turn. Default 10,000. */
  readonly totalMs?: number;
  /** The first wait between two attempts; each is twice the one before, of which a random half is waited. Default 50. */
  readonly firstBackoffMs?: number;
  /** The longest wait between two attempts. Default 800, so that a registry that returns is found within a second. */
  readonly maxBackoffMs?: number;
}

const PATH = 'registry.etcd';

/** Never throws; see `parseOptions`. */
export function parseEtcdOptions(options: unknown): ParsedOptions<ResolvedOptions> {
  const { value, violations } = parseOptions(optionsSchema, options, PATH);
  return { value, violations: violations.map(named) };
}

/** A password in an endpoint has a name of its own. */
function named(found: Violation): Violation {
  return found.id === 'secret-literal' && found.path.startsWith(`${PATH}.endpoints`)
    ? violation('registry-url-credentials', found.path)
    : found;
}

const endpoint = z.string().transform((text, context): EtcdEndpoint => {
  const parsed = endpointOf(text);
  if (!('problem' in parsed)) return parsed;
  context.addIssue({ code: 'custom', message: parsed.problem, params: { violation: parsed.violation } });
  return z.NEVER;
});

const expectedIdentity = z.string().transform((text, context): IdentityMatcher => {
  try {
    return exactly(parseSpiffeId(text));
  } catch {
    context.addIssue({ code: 'custom', message: 'expected a SPIFFE ID' });
    return z.NEVER;
  }
});

const optionsSchema = z
  .strictObject({
    endpoints: z.array(endpoint).min(1, 'expected at least one endpoint').max(32, 'more than 32 endpoints'),
    secure: z.custom<true>((value) => value === true, {
      params: { violation: 'registry-insecure' },
      error: 'the option is required: there is no plaintext mode',
    }),
    tls: z.custom<TlsSource>(isTlsSource, {
      params: { violation: 'tls-missing' },
      error: 'the connection to etcd has no TLS identity; there is no plaintext mode',
    }),
    auth: z
      .strictObject({
        username: z.string().min(1, 'the name is empty').max(256, 'longer than 256'),
        password: z.custom<Secret>(isSecret, 'expected a secret'),
      })
      .optional(),
    root: z
      .string()
      .regex(/^[A-Za-z0-9._-]{1,64}$/, 'expected 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-"')
      .default('sallyport'),
    identity: expectedIdentity.optional(),
    leaseTtlMs: durationMs({ min: 3000, max: 3_600_000 }).default(15_000),
    pageSize: limit({ max: 1000 }).default(500),
    emptyGraceMs: durationMs({ max: 3_600_000 }).default(30_000),
    timeouts: z
      .strictObject({
        handshakeMs: durationMs({ min: 100, max: 60_000 }).default(3000),
        requestMs: durationMs({ min: 100, max: 60_000 }).default(5000),
        keepaliveIntervalMs: durationMs({ min: 5000, max: 600_000 }).default(10_000),
        keepaliveTimeoutMs: durationMs({ min: 100, max: 60_000 }).default(3000),
        closeMs: durationMs({ min: 100, max: 60_000 }).default(3000),
      })
      .prefault({}),
    retry: z
      .strictObject({
        totalMs: durationMs({ max: 600_000 }).default(10_000),
        firstBackoffMs: durationMs({ max: 60_000 }).default(50),
        maxBackoffMs: durationMs({ max: 60_000 }).default(800),
      })
      .prefault({}),
    allowRootUser: z.strictObject({ reason: z.string().trim().min(1) }).optional(),
  })
  // A lease counts in whole seconds.
  .refine(({ leaseTtlMs }) => leaseTtlMs % 1000 === 0, { path: ['leaseTtlMs'], error: 'expected whole seconds' });

export type ResolvedOptions = z.output<typeof optionsSchema>;

function isTlsSource(value: unknown): boolean {
  const source = value as Partial<TlsSource> | undefined;
  return typeof source?.check === 'function' && typeof source.open === 'function';
}
