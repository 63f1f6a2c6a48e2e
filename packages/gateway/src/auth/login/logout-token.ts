import type { Clock } from '@sallyport/core/spi';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import { type KeySource, KeysUnavailableError, KeyUnknownError } from '../key-set.js';

/** Whose sessions the issuer has ended: that one, or all of the subject. At least one is there. */
export interface EndedSession {
  readonly sid: string | undefined;
  readonly subject: string | undefined;
}

export interface LogoutTokenOptions {
  readonly issuer: string;
  readonly clientId: string;
}

/** It is no logout token of the issuer for us, or not a new one. The message holds nothing of it. */
export class LogoutTokenError extends Error {
  override readonly name = 'LogoutTokenError';
}

const EVENT = 'http://schemas.openid.net/event/backchannel-logout';
const ALGORITHMS = [
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
];
/** Section 2.4 names what it should be; `JWT`, or none, is what issuers write that came before it. */
const TYPES: readonly unknown[] = ['logout+jwt', 'JWT', undefined];
const SKEW_MS = 5000;
/** Section 2.4 recommends two minutes. */
const MAX_AGE_MS = 600_000;
const MAX_TOKEN_LENGTH = 16 * 1024;
const MAX_ID_LENGTH = 512;
const MAX_REMEMBERED = 10_000;

/** Judges logout tokens (OpenID Connect Back-Channel Logout 1.0 section 2.6), each of which is good once. */
export class LogoutTokens {
  readonly #options: LogoutTokenOptions;
  readonly #keys: KeySource;
  readonly #clock: Clock;
  /** By their ids, in the order in which they came; each with the end of its time. */
  readonly #seen = new Map<string, number>();

  constructor(options: LogoutTokenOptions, keys: KeySource, clock: Clock) {
    this.#options = options;
    this.#keys = keys;
    this.#clock = clock;
  }

  /** Rejects with LogoutTokenError, or with KeysUnavailableError when nobody can tell. */
  async judge(token: string): Promise<EndedSession> {
    if (token.length > MAX_TOKEN_LENGTH) throw new LogoutTokenError('the token is too long');
    const payload = await this.#verified(token);
    const { events, nonce, sub, sid } = payload;
    // Section 2.4: an ID token has one, and must not pass as a logout token.
    if (nonce !== undefined) throw new LogoutTokenError('it has a nonce, as an ID token does');
    const event =
      typeof events === 'object' && events !== null ? (events as Record<string, unknown>)[EVENT] : undefined;
    if (typeof event !== 'object' || event === null || Array.isArray(event)) {
      throw new LogoutTokenError('it tells of no logout');
    }
    const ended = { subject: nameOf(sub), sid: nameOf(sid) };
    if (ended.subject === undefined && ended.sid === undefined) throw new LogoutTokenError('it names nobody');
    this.#remember(payload);
    return ended;
  }

  async #verified(token: string): Promise<JWTPayload> {
    const { issuer, clientId } = this.#options;
    const now = this.#clock.now();
    try {
      const { payload, protectedHeader } = await jwtVerify(token, (header) => this.#keys.find(header), {
        issuer,
        audience: clientId,
        algorithms: ALGORITHMS,
        clockTolerance: SKEW_MS / 1000,
        currentDate: new Date(now),
        requiredClaims: ['iat', 'exp', 'jti', 'events'],
      });
      if (!TYPES.includes(protectedHeader.typ)) throw new LogoutTokenError('it is a token of another type');
      if ([payload.aud].flat().length > 1) throw new LogoutTokenError('it is for others as well');
      const issuedAt = (payload.iat ?? 0) * 1000;
      if (issuedAt < now - MAX_AGE_MS || issuedAt > now + SKEW_MS) {
        throw new LogoutTokenError('it is too old, or of the future');
      }
      return payload;
    } catch (error) {
      if (error instanceof KeysUnavailableError || error instanceof LogoutTokenError) throw error;
      if (error instanceof KeyUnknownError) throw new LogoutTokenError(error.message);
      // The texts of jose name claims and never hold their values.
      if (error instanceof errors.JOSEError) throw new LogoutTokenError(`${error.code}: ${error.message}`);
      throw new LogoutTokenError('it does not fit its key');
    }
  }

  #remember({ jti }: JWTPayload): void {
    const id = nameOf(jti);
    if (id === undefined) throw new LogoutTokenError('it has no usable id');
    const now = this.#clock.now();
    for (const [oldest, until] of this.#seen) {
      if (until > now && this.#seen.size < MAX_REMEMBERED) break;
      this.#seen.delete(oldest);
    }
    if (this.#seen.has(id)) throw new LogoutTokenError('it was used before');
    // Longer than any token is believed.
    this.#seen.set(id, now + MAX_AGE_MS + SKEW_MS);
  }
}

function nameOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value.length <= MAX_ID_LENGTH ? value : undefined;
}
