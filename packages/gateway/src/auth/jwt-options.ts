import type { Secret } from '@sallyport/core';
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
import { type DpopNonceOptions, dpopNonceSchema, type ResolvedDpopNonceOptions } from './dpop-nonces.js';
import type { TokenBinding } from './token-authenticator.js';

/** RFC 7518 section 3.1 and RFC 8037; `none` does not exist here. */
const ASYMMETRIC = [
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
  'RS384',
  'RS512',
] as const;
const SYMMETRIC = ['HS256', 'HS384', 'HS512'] as const;

export type JwtAlgorithm = (typeof ASYMMETRIC)[number] | (typeof SYMMETRIC)[number];

/** Which tokens are taken, and by which keys they are verified: those of `jwks`, `publicKey` or `secret`, else discovery. */
export interface JwtOptions {
  /** `iss` of the tokens, exactly. Without a source of keys also where they are discovered (OpenID Connect Discovery 1.0). */
  readonly issuer: string;
  /** `aud` of the tokens: who we are for the issuer. Any of several. */
  readonly audience: string | readonly string[];
  /** Other audiences that may stand beside ours in one token. Default none: who is named there could present it here. */
  readonly otherAudiences?: readonly string[];
  /** Algorithms that are taken. Default: all asymmetric ones; with `secret` HS256. */
  readonly algorithms?: readonly JwtAlgorithm[];
  /** `typ` of the tokens. Default `at+jwt` (RFC 9068 section 2.1); `JWT` for issuers that do not write it. */
  readonly type?: string;
  /** `url` of the issuer's keys over https; `keys` are those to begin with while it cannot be reached, or all of them. */
  readonly jwks?: { readonly url?: string; readonly keys?: readonly object[] };
  /** PEM of the one public key or certificate, or the file it stands in. */
  readonly publicKey?: string;
  /** For HS256 and its kin: at least as many bytes as the hash has. Everybody who verifies can sign; better not. */
  readonly secret?: Secret;
  /** PEM file: the only CAs that the issuer's certificate may come from. Left out: the public ones. */
  readonly ca?: string;
  /** How far the clocks may differ, ms. Default 5,000, at most 5 minutes. */
  readonly clockSkewMs?: number;
  /** Claim that holds the scopes. Default `scope`. */
  readonly scopeClaim?: string;
  /** Takes only tokens bound to the client's certificate (RFC 8705) or key (RFC 9449). Left out: also unbound ones. */
  readonly binding?: TokenBinding;
  /** Proofs of possession must hold a nonce of the gateway's (RFC 9449 section 9). Left out: they need none. */
  readonly dpopNonce?: DpopNonceOptions;
  /** How long a verified token is remembered, never past its expiry, ms. Default and maximum 60,000. */
  readonly cacheMs?: number;
  /** Default 10,000. */
  readonly maxCachedTokens?: number;
  /** How often the issuer's keys are fetched, ms. Default 5 minutes. */
  readonly refreshMs?: number;
  /** How long keys are believed while the issuer cannot be reached, ms. Default 12 hours. */
  readonly maxStaleMs?: number;
  /** Time for a request to the issuer, ms. Default 5,000. */
  readonly timeoutMs?: number;
}

const HOUR_MS = 3_600_000;
const text = z.string().min(1).max(2048);
const algorithms = z.array(z.enum([...ASYMMETRIC, ...SYMMETRIC])).min(1);

const schema = z.strictObject({
  issuer: text,
  audience: z.union([text.transform((one) => [one]), z.array(text).min(1)]),
  otherAudiences: z.array(text).default([]),
  algorithms: algorithms.optional(),
  type: text.default('at+jwt'),
  jwks: z
    .strictObject({ url: z.string().optional(), keys: z.array(z.looseObject({})).min(1).optional() })
    .refine(({ url, keys }) => url !== undefined || keys !== undefined, 'name the url of the keys, or give them')
    .optional(),
  publicKey: text.max(16_384).optional(),
  secret: z.custom<Secret>(isSecret, 'expected a secret').optional(),
  ca: text.optional(),
  clockSkewMs: z.number().int().min(0).max(300_000).default(5000),
  scopeClaim: text.default('scope'),
  binding: z.enum(['certificate', 'dpop']).optional(),
  dpopNonce: dpopNonceSchema.optional(),
  cacheMs: durationMs({ max: 60_000 }).default(60_000),
  maxCachedTokens: limit({ max: 1_000_000 }).default(10_000),
  refreshMs: durationMs({ min: 1000, max: 24 * HOUR_MS }).default(300_000),
  maxStaleMs: durationMs({ max: 7 * 24 * HOUR_MS }).default(12 * HOUR_MS),
  timeoutMs: durationMs({ max: 60_000 }).default(5000),
});

type Parsed = z.output<typeof schema>;
export type ResolvedJwtOptions = Omit<Parsed, 'algorithms' | 'binding' | 'dpopNonce'> & {
  readonly algorithms: readonly JwtAlgorithm[];
  readonly binding: TokenBinding | undefined;
  readonly dpopNonce: ResolvedDpopNonceOptions | undefined;
};
export type ParsedJwtOptions = ParsedOptions<ResolvedJwtOptions>;

const PINS = ['jwt.issuer', 'jwt.audience', 'jwt.type'];

export function parseJwtOptions(options: unknown): ParsedJwtOptions {
  const { value, violations } = parseOptions(schema, options, 'jwt');
  const named = violations.map((found) => renamed(found));
  if (!value) return { value: undefined, violations: named };
  const resolved: ResolvedJwtOptions = {
    ...value,
    algorithms: value.algorithms ?? (value.secret ? ['HS256'] : ASYMMETRIC),
    binding: value.binding,
    dpopNonce: value.dpopNonce,
  };
  const found = [...named, ...algorithmViolations(resolved), ...sourceViolations(resolved)];
  return { value: found.length > 0 ? undefined : Object.freeze(resolved), violations: found };
}

/** `https://…` without credentials in it, or what is wrong with it. */
export function addressViolations(url: string, path: string): Violation[] {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed?.protocol === 'https:' && parsed.username === '' && parsed.password === '') return [];
  return [violation('auth-source-insecure', path)];
}

/** A token that is not pinned, and an algorithm that is none, have names of their own. */
function renamed(found: Violation): Violation {
  if (found.id !== 'option-missing' && found.id !== 'option-invalid') return found;
  if (PINS.some((pin) => found.path.startsWith(pin))) return violation('auth-token-unpinned', found.path);
  if (!found.path.startsWith('jwt.algorithms')) return found;
  return violation('auth-algorithm-unsafe', found.path, 'expected a list of known algorithms; "none" is not one');
}

function algorithmViolations({ algorithms: listed, secret }: ResolvedJwtOptions): Violation[] {
  const symmetric = listed.filter((name) => (SYMMETRIC as readonly string[]).includes(name));
  if (secret ? symmetric.length === listed.length : symmetric.length === 0) return [];
  const problem = secret
    ? 'a secret verifies HS256 and its kin alone'
    : 'a public key would be taken for the secret of HS256: whoever reads it could sign';
  return [violation('auth-algorithm-unsafe', 'jwt.algorithms', problem)];
}

function sourceViolations({ issuer, jwks, publicKey, secret }: ResolvedJwtOptions): Violation[] {
  const given = [jwks, publicKey, secret].filter((source) => source !== undefined);
  if (given.length > 1) {
    return [violation('option-invalid', 'jwt', 'give one source of keys: jwks, publicKey or secret')];
  }
  if (jwks?.url !== undefined) return addressViolations(jwks.url, 'jwt.jwks.url');
  return given.length === 0 ? addressViolations(issuer, 'jwt.issuer') : [];
}
