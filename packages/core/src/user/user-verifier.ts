import { type KeyObject, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import type { Clock } from '../clock.js';
import type { IdentityMatcher } from '../identity/matcher.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import { hasStrongKey } from '../tls/key-strength.js';
import type { TlsHandle, TlsMaterial } from '../tls/source.js';
import { verifyChain } from '../tls/verify-chain.js';
import type { Metadata } from '../transport/metadata.js';
import { jwsAlgorithmOf } from './jws-algorithm.js';
import { MAX_USER_TOKEN_MS, USER_METADATA_KEY, USER_TOKEN_TYPE, type User } from './user.js';

/** A call names a user, and that is not to be believed. The message says why and holds nothing of the token. */
export class UserRefusedError extends Error {
  override readonly name = 'UserRefusedError';
}

export interface UserVerifierContext {
  /** Who may speak for users. */
  readonly from: IdentityMatcher;
  readonly tls: TlsHandle;
  readonly clock: Clock;
}

const MAX_TOKEN_LENGTH = 16 * 1024;
const MAX_CERTIFICATES = 4;
/** What the clocks of two machines may differ. */
const SKEW_MS = 5000;
const MAX_REMEMBERED_USERS = 4096;
const MAX_REMEMBERED_SIGNERS = 64;

const headerSchema = z.strictObject({
  alg: z.string(),
  typ: z.literal(USER_TOKEN_TYPE),
  x5c: z.array(z.string().min(1)).min(1).max(MAX_CERTIFICATES),
});
const payloadSchema = z.strictObject({
  iss: z.string(),
  aud: z.string(),
  sub: z.string().min(1),
  iat: z.number(),
  exp: z.number(),
  jti: z.string(),
  idp: z.string(),
  amr: z.string(),
  scope: z.string(),
  claims: z.record(z.string(), z.unknown()),
  end: z.number(),
});

interface Signer {
  readonly key: KeyObject;
  /** SPIFFE ID of the certificate. */
  readonly id: string;
  /** End of the first certificate of the chain to expire, ms since the epoch. */
  readonly notAfter: number;
}

interface VerifiedUser {
  readonly user: User;
  /** Ms since the epoch. */
  readonly until: number;
}

/**
 * Believes what a gateway says of a user when the gateway itself makes the call, may speak for users, has signed it with a
 * certificate of its own that this service would accept in a handshake, and means this service, now.
 */
export class UserVerifier {
  readonly #context: UserVerifierContext;
  #material: TlsMaterial | undefined;
  // By the token itself, for as long as it lives: most calls of a user come with the same one.
  #users = new Map<string, VerifiedUser>();
  #signers = new Map<string, Signer>();

  constructor(context: UserVerifierContext) {
    this.#context = context;
  }

  /** Undefined when the call names no user. Throws UserRefusedError. */
  userOf(peer: PeerIdentity, metadata: Metadata): User | undefined {
    const values = metadata.getAll(USER_METADATA_KEY);
    if (values.length === 0) return undefined;
    const [token] = values;
    if (values.length > 1 || typeof token !== 'string') throw new UserRefusedError('it names several users');
    const { from, tls, clock } = this.#context;
    if (!from.matches(peer.spiffeId)) throw new UserRefusedError(`${peer.id} may not speak for users`);
    this.#forgetAfterChange(tls.current());
    const now = clock.now();
    const known = this.#users.get(token);
    const verified = known ?? this.#verify(token, tls.current(), now);
    if (verified.until <= now) throw new UserRefusedError('what it says of the user has expired');
    if (verified.user.via !== peer.id) throw new UserRefusedError(`it was signed by ${verified.user.via}`);
    if (!known) remember(this.#users, token, verified, MAX_REMEMBERED_USERS);
    return verified.user;
  }

  /** Other trust bundles or revocation lists may judge the same certificate differently. */
  #forgetAfterChange(material: TlsMaterial): void {
    if (this.#material === material) return;
    this.#material = material;
    this.#users = new Map();
    this.#signers = new Map();
  }

  #verify(token: string, material: TlsMaterial, now: number): VerifiedUser {
    if (token.length > MAX_TOKEN_LENGTH) throw new UserRefusedError('it is too long');
    const [header = '', payload = '', signature = '', ...more] = token.split('.');
    if (more.length > 0) throw new UserRefusedError('it is malformed');
    const { alg, x5c } = parsed(headerSchema, header);
    const signer = this.#signer(x5c, material, now);
    const algorithm = jwsAlgorithmOf(signer.key);
    const isGenuine =
      alg === algorithm.name &&
      algorithm.verify(`${header}.${payload}`, signer.key, Buffer.from(signature, 'base64url'));
    if (!isGenuine) throw new UserRefusedError('its signature is not that of its certificate');
    const { iss, aud, sub, iat, exp, idp, amr, scope, claims, end } = parsed(payloadSchema, payload);
    if (iss !== signer.id) throw new UserRefusedError('it was signed by another than it says');
    if (aud !== material.identity.toString()) throw new UserRefusedError('it is for another service');
    if (iat * 1000 > now + SKEW_MS) throw new UserRefusedError('it is of the future');
    if ((exp - iat) * 1000 > MAX_USER_TOKEN_MS) throw new UserRefusedError('it is good for too long');
    const user: User = Object.freeze({
      subject: sub,
      issuer: idp,
      scopes: new Set(scope.split(' ').filter((one) => one !== '')),
      claims: Object.freeze(claims),
      method: amr,
      via: signer.id,
      expiresAt: end,
    });
    return { user, until: Math.min(exp * 1000 + SKEW_MS, signer.notAfter) };
  }

  #signer(x5c: readonly string[], material: TlsMaterial, now: number): Signer {
    const name = x5c.join(' ');
    const known = this.#signers.get(name);
    if (known && known.notAfter > now) return known;
    const chain = certificatesOf(x5c);
    const verdict = verifyChain(chain, material, now);
    if (!verdict.ok) throw new UserRefusedError(`its certificate is refused: ${verdict.detail}`);
    const [leaf] = chain as [X509Certificate];
    if (!hasStrongKey(leaf)) throw new UserRefusedError('the key of its certificate is too weak');
    const notAfter = Math.min(...chain.map(({ validTo }) => Date.parse(validTo)));
    const signer = { key: leaf.publicKey, id: verdict.peer.id, notAfter };
    remember(this.#signers, name, signer, MAX_REMEMBERED_SIGNERS);
    return signer;
  }
}

function certificatesOf(x5c: readonly string[]): X509Certificate[] {
  try {
    return x5c.map((der) => new X509Certificate(Buffer.from(der, 'base64')));
  } catch {
    throw new UserRefusedError('its certificate is damaged');
  }
}

function parsed<T>(schema: z.ZodType<T>, part: string): T {
  try {
    return schema.parse(JSON.parse(Buffer.from(part, 'base64url').toString('utf8')));
  } catch {
    throw new UserRefusedError('it is malformed');
  }
}

function remember<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key);
  map.set(key, value);
  for (const oldest of map.keys()) {
    if (map.size <= max) break;
    map.delete(oldest);
  }
}
