import { resolve } from 'node:path';
import { parseSpiffeId, type Secret } from '@sallyport/core';
import { durationMs, isSecret } from '@sallyport/core/spi';
import { z } from 'zod';

/** How to reach a Vault or OpenBao cluster, and who asks. */
export interface VaultConnectionOptions {
  /** `https://vault.internal:8200`. The server's certificate must name this host. */
  readonly address: string;
  /** File of the CA certificates (PEM) that the server's certificate must come from. Read again for each request. */
  readonly ca: string;
  readonly auth: VaultAuth;
  /** Of Vault Enterprise, HCP or OpenBao, `team/orders`. Left out: the root namespace. */
  readonly namespace?: string;
  /** One request, from the first byte out to the last byte in, ms. Default 5,000. */
  readonly timeoutMs?: number;
}

/** `mount` is where the method is enabled, below `auth/`. Left out: under its own name. */
export type VaultAuth =
  | { readonly method: 'approle'; readonly roleId: string; readonly secretId: Secret; readonly mount?: string }
  | {
      readonly method: 'kubernetes';
      readonly role: string;
      /** Left out: the token of the service account that Kubernetes mounts into the pod. */
      readonly jwt?: Secret;
      readonly mount?: string;
    }
  | { readonly method: 'token'; readonly token: Secret };

export interface FromVaultOptions extends VaultConnectionOptions {
  /** The SPIFFE id to ask for, `spiffe://prod.acme/svc/web`. A certificate of any other is refused. */
  readonly id: string;
  /** Of the PKI secrets engine; it must let this id be asked for as URI SAN. */
  readonly role: string;
  /** Where the PKI secrets engine is mounted. Default `pki`. */
  readonly mount?: string;
  /** Lifetime to ask for, ms, at least a minute. Left out: that of the role. */
  readonly ttlMs?: number;
  /** PKI mounts whose roots are trusted and whose lists are used. Left out: `mount` alone. */
  readonly authorities?: readonly string[];
  /** File of the roots (PEM) of the own trust domain. Left out: the self-signed issuers in `authorities`. */
  readonly bundle?: string;
  /** Files of the roots (PEM) of other trust domains, by trust domain. Left out: none. */
  readonly bundles?: Readonly<Record<string, string>>;
  /** Whether the revocation lists of every issuer in `authorities` are used. Default false. */
  readonly crl?: boolean;
  /** How long revocation lists count after their `nextUpdate`, ms. Default 0; then nobody gets in any more. */
  readonly revocationGraceMs?: number;
  /** Time between two looks at roots and lists, ms. At least 100; default 60,000. */
  readonly refreshMs?: number;
  /** How long the first certificate is tried to get while Vault cannot be reached or is sealed, ms. Default 15,000. */
  readonly startTimeoutMs?: number;
}

export const START_TIMEOUT_MS = 15_000;

const path = z
  .string()
  .min(1)
  .transform((given) => resolve(given));

const secretValue = z.custom<Secret>(isSecret, {
  params: { violation: 'secret-literal' },
  error: 'expected a secret, e.g. secret.file("/run/secrets/vault")',
});

/** Mounts may hold slashes; nothing in them may leave the path or begin a query. */
const mount = z
  .string()
  .max(256)
  .regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/, 'expected a path of A-Z, a-z, 0-9, ".", "_" and "-"')
  .refine((text) => text.split('/').every((step) => step !== '.' && step !== '..'), 'it leaves its place');

const name = z.string().regex(/^[A-Za-z0-9._-]{1,256}$/, 'not 1 to 256 of A-Z, a-z, 0-9, ".", "_" and "-"');

const auth = z.discriminatedUnion('method', [
  z.strictObject({
    method: z.literal('approle'),
    roleId: z.string().min(1).max(4096),
    secretId: secretValue,
    mount: mount.default('approle'),
  }),
  z.strictObject({
    method: z.literal('kubernetes'),
    role: z.string().min(1).max(256),
    jwt: secretValue.optional(),
    mount: mount.default('kubernetes'),
  }),
  z.strictObject({ method: z.literal('token'), token: secretValue }),
]);

const connection = {
  address: z.string().superRefine(checkAddress),
  ca: z
    .string()
    .refine((given) => given !== '', { params: { violation: 'tls-ca-empty' }, error: 'no CA file is named' })
    .transform((given) => resolve(given)),
  auth,
  namespace: mount.optional(),
  timeoutMs: durationMs({ min: 100, max: 60_000 }).default(5000),
};

export const fromVaultSchema = z
  .strictObject({
    ...connection,
    id: z.string().transform(toSpiffeId),
    role: name,
    mount: mount.default('pki'),
    ttlMs: durationMs({ min: 60_000 }).optional(),
    authorities: z.array(mount).min(1).max(8).optional(),
    bundle: path.optional(),
    bundles: z.record(z.string(), path).default({}),
    crl: z.boolean().default(false),
    revocationGraceMs: z.union([z.literal(0), durationMs()]).default(0),
    refreshMs: durationMs({ min: 100 }).default(60_000),
    startTimeoutMs: durationMs().default(START_TIMEOUT_MS),
  })
  .transform((options) => ({ ...options, authorities: options.authorities ?? [options.mount] }));

export const vaultStoreSchema = z.strictObject({ ...connection, mount: mount.default('secret') });

export type ResolvedVaultConnection = Pick<ResolvedFromVault, keyof typeof connection>;
export type ResolvedAuth = z.output<typeof auth>;
export type ResolvedFromVault = z.output<typeof fromVaultSchema>;

function checkAddress(text: string, context: z.RefinementCtx): void {
  const problem = addressProblem(text);
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
}

function addressProblem(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:') return 'expected an address like https://vault.internal:8200';
  if (url.username !== '' || url.password !== '') return 'the address holds credentials';
  const bare = url.pathname === '/' && url.search === '' && url.hash === '';
  return bare ? undefined : 'expected scheme, host and port only';
}

function toSpiffeId(text: string, context: z.RefinementCtx) {
  try {
    return parseSpiffeId(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not a SPIFFE id' });
    return z.NEVER;
  }
}
