import { resolve } from 'node:path';
import { parseSpiffeId, type Secret, type ViolationId } from '@sallyport/core';
import { durationMs, isSecret, type ParsedOptions, parseOptions } from '@sallyport/core/spi';
import { z } from 'zod';

export interface FromAuthorityOptions {
  /** Of the door where workloads enrol: `https://authority.internal:8700`. */
  readonly address: string;
  /**
   * The roots of the trust domain, as PEM or as a path to it: the authority must come with a certificate of theirs, and what it
   * issues must be theirs as well. There is no trust on first use.
   */
  readonly bundle: string;
  /**
   * One-time token for this workload alone, e.g. `secret.file('/run/secrets/join-token')`. Read only to enrol: at each start,
   * because the private key is never stored, and again if the certificate could not be renewed before it expired.
   */
  readonly joinToken: Secret;
  /** SPIFFE ID that the certificates must have. Left out: the one that the join token stands for. */
  readonly id?: string;
  /** SPIFFE ID of the authority. Default `/sallyport/authority` in the trust domain of the bundle. */
  readonly expect?: string;
  /** How long enrolment is tried at the start while the authority is away. Default 30 s. */
  readonly startTimeoutMs?: number;
  /** One request to the authority. Default 10 s. */
  readonly requestTimeoutMs?: number;
  /** How often bundle and revocation lists are fetched even if the authority announces no change. Default 60 s. */
  readonly pollMs?: number;
  /** How long revocation lists count after their `nextUpdate`, ms. Default 0: then nobody is let in until there is a new one. */
  readonly revocationGraceMs?: number;
}

const PEM = /-----BEGIN /;

const spiffeId = z.string().transform((text, context) => {
  try {
    return parseSpiffeId(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not a SPIFFE ID' });
    return z.NEVER;
  }
});

/** Named, so that the declarations of the package name Node's type as we do. */
const address: z.ZodType<URL, string> = z
  .string()
  .superRefine(checkAddress)
  .transform((text) => new URL(text));

const schema = z.strictObject({
  address,
  bundle: z
    .string()
    .refine((given) => given.trim() !== '', {
      params: { violation: 'tls-ca-empty' },
      error: 'there is no bundle to trust',
    })
    .transform((given) => (PEM.test(given) ? { pem: given } : { path: resolve(given) })),
  joinToken: z.custom<Secret>(isSecret, 'expected a secret'),
  id: spiffeId.optional(),
  expect: spiffeId.optional(),
  startTimeoutMs: durationMs({ max: 3_600_000 }).default(30_000),
  requestTimeoutMs: durationMs({ min: 100, max: 600_000 }).default(10_000),
  pollMs: durationMs({ min: 100 }).default(60_000),
  revocationGraceMs: z.union([z.literal(0), durationMs()]).default(0),
});

export type ResolvedAuthority = z.output<typeof schema>;

export function parseAuthorityOptions(options: unknown): ParsedOptions<ResolvedAuthority> {
  return parseOptions(schema, options, 'tls');
}

function checkAddress(text: string, context: z.RefinementCtx): void {
  const [id, message] = addressProblem(text) ?? [];
  if (id !== undefined) context.addIssue({ code: 'custom', message, params: { violation: id } });
}

function addressProblem(text: string): [ViolationId, string] | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) return ['option-invalid', 'expected an address like https://authority.internal:8700'];
  if (url.protocol !== 'https:') return ['authority-plaintext', 'the address is not https://'];
  if (url.pathname === '/' && url.search === '' && url.hash === '' && url.username === '') return undefined;
  return ['option-invalid', 'expected scheme, host and port only'];
}
