import { type Clock, InsecureConfigurationError, systemClock, type Violation } from '@sallyport/core/spi';
import { errors, type JWTHeaderParameters, type JWTPayload, jwtVerify } from 'jose';
import { confirmationOf } from './confirmation.js';
import { DpopNonces, nonceViolations } from './dpop-nonces.js';
import type { AuthContext, Authenticator, AuthHandler } from './handler.js';
import { openKeys } from './jwt-keys.js';
import { type JwtOptions, type ParsedJwtOptions, parseJwtOptions, type ResolvedJwtOptions } from './jwt-options.js';
import { type KeySource, KeysUnavailableError, KeyUnknownError, type VerifyingKey } from './key-set.js';
import { scopesOf } from './scopes.js';
import {
  type Refused,
  refused,
  TokenAuthenticator,
  type TokenJudge,
  type VerifiedToken,
} from './token-authenticator.js';

/**
 * Signed access tokens (RFC 7519, RFC 9068) in `Authorization: Bearer` or, bound to a key, `DPoP`. Issuer, audience, type,
 * algorithm and expiry are always checked.
 *
 * @example jwt({ issuer: 'https://login.shop.example', audience: 'https://api.shop.example' })
 */
export function jwt(options: JwtOptions): AuthHandler {
  return new JwtHandler(parseJwtOptions(options));
}

class JwtHandler implements AuthHandler {
  readonly kind = 'jwt';
  readonly #parsed: ParsedJwtOptions;

  constructor(parsed: ParsedJwtOptions) {
    this.#parsed = parsed;
  }

  async check(): Promise<readonly Violation[]> {
    const { value, violations } = this.#parsed;
    if (!value) return violations;
    const keys = await openKeys(value, { clock: systemClock, events: { emit: () => {} } });
    const found = await nonceViolations(value.dpopNonce, 'jwt');
    if (Array.isArray(keys)) return [...keys, ...found];
    (keys as KeySource).close();
    return found;
  }

  async open(context: AuthContext): Promise<Authenticator> {
    const { value, violations } = this.#parsed;
    const nonceProblems = await nonceViolations(value?.dpopNonce, 'jwt');
    if (nonceProblems.length > 0) throw new InsecureConfigurationError('jwt', nonceProblems);
    const { clock } = context;
    const nonces = await DpopNonces.open(value?.dpopNonce, clock);
    const keys = value ? await openKeys(value, context) : violations;
    if (!value || Array.isArray(keys)) throw new InsecureConfigurationError('jwt', keys as readonly Violation[]);
    return new TokenAuthenticator(new JwtJudge(value, keys as KeySource, clock), { ...value, nonces, clock });
  }
}

class JwtJudge implements TokenJudge {
  readonly #options: ResolvedJwtOptions;
  readonly #keys: KeySource;
  readonly #clock: Clock;

  constructor(options: ResolvedJwtOptions, keys: KeySource, clock: Clock) {
    this.#options = options;
    this.#keys = keys;
    this.#clock = clock;
  }

  get generation(): number {
    return this.#keys.generation;
  }

  async judge(token: string): Promise<VerifiedToken | Refused> {
    const { issuer, audience, algorithms, type, clockSkewMs } = this.#options;
    try {
      const { payload } = await jwtVerify(token, (header) => this.#key(header), {
        issuer,
        audience: [...audience],
        algorithms: [...algorithms],
        typ: type,
        clockTolerance: clockSkewMs / 1000,
        currentDate: new Date(this.#clock.now()),
        requiredClaims: ['exp', 'sub'],
      });
      return this.#verified(payload);
    } catch (error) {
      return refusalOf(error);
    }
  }

  close(): void {
    this.#keys.close();
  }

  /** Called for headers of an allowed algorithm without unknown critical members. */
  async #key(header: JWTHeaderParameters): Promise<VerifyingKey> {
    // Keys come from the issuer that is configured; a token that brings its own, or says where to get them, is an attack.
    const brought = ['jku', 'jwk', 'x5u', 'x5c'].find((name) => name in header);
    if (brought !== undefined) throw new TokenRefusedError(`the token brings its own key (${brought})`);
    if (header.kid !== undefined && (typeof header.kid !== 'string' || header.kid.length > MAX_KID_LENGTH)) {
      throw new TokenRefusedError('the id of its key is none');
    }
    return this.#keys.find(header);
  }

  #verified(payload: JWTPayload): VerifiedToken | Refused {
    const { audience, otherAudiences, clockSkewMs, scopeClaim } = this.#options;
    const { sub: subject, iss: issuer = '', exp = 0, iat, aud, cnf } = payload;
    if (typeof subject !== 'string' || subject === '') return refused(401, 'the token names no subject');
    const foreign = [aud ?? []].flat().find((one) => !audience.includes(one) && !otherAudiences.includes(one));
    if (foreign !== undefined) return refused(401, 'the token is good elsewhere too, from where it could come again');
    if (iat !== undefined && iat * 1000 > this.#clock.now() + clockSkewMs)
      return refused(401, 'the token is of the future');
    const confirmation = confirmationOf(cnf);
    if (typeof confirmation === 'string') return refused(401, confirmation);
    const principal = Object.freeze({
      subject,
      issuer,
      scopes: scopesOf(payload[scopeClaim]),
      claims: Object.freeze(payload),
      expiresAt: exp * 1000 + clockSkewMs,
      method: 'jwt',
    });
    return { principal, confirmation };
  }
}

const MAX_KID_LENGTH = 256;

class TokenRefusedError extends Error {
  override readonly name = 'TokenRefusedError';
}

/** The texts of jose name claims and never hold their values. */
function refusalOf(error: unknown): Refused {
  if (error instanceof KeysUnavailableError) return refused(503, error.message);
  if (error instanceof KeyUnknownError || error instanceof TokenRefusedError) return refused(401, error.message);
  if (error instanceof errors.JOSEError) return refused(401, `${error.code}: ${error.message}`);
  return refused(401, 'the token does not fit its key');
}
