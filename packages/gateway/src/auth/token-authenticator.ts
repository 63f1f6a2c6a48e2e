import { hash } from 'node:crypto';
import type { Clock } from '@sallyport/core/spi';
import type { EdgeRequest } from '../edge-request.js';
import { type Confirmation, certificateProblem } from './confirmation.js';
import { type TokenCredential, tokenCredentialOf } from './credential.js';
import { DPOP_ALGORITHMS, DpopProofs } from './dpop.js';
import type { DpopNonces } from './dpop-nonces.js';
import type { Authenticator, AuthResult, Principal } from './handler.js';
import { TokenCache } from './token-cache.js';

export type Refused = Extract<AuthResult, { outcome: 'refused' }>;

/** What a token says when it is genuine, whoever presents it. */
export interface VerifiedToken {
  readonly principal: Principal;
  /** Who alone may present it; undefined: whoever has it. */
  readonly confirmation: Confirmation | undefined;
}

/** Tells whether a token is genuine, current and meant for us. */
export interface TokenJudge {
  /** Grows when what was verified before proves nothing any more. */
  readonly generation: number;
  judge(token: string): Promise<VerifiedToken | Refused>;
  /** Twice is harmless. */
  close(): void;
}

export type TokenBinding = 'certificate' | 'dpop';

export interface TokenAuthenticatorOptions {
  /** Only tokens that are bound in this way are taken. Undefined: also those that are not bound. */
  readonly binding: TokenBinding | undefined;
  /** Proofs of possession must hold one of these. Undefined: they need not. */
  readonly nonces: DpopNonces | undefined;
  readonly cacheMs: number;
  readonly maxCachedTokens: number;
  readonly clock: Clock;
}

const DPOP_CHALLENGE = `DPoP algs="${DPOP_ALGORITHMS.join(' ')}"`;
/** RFC 9449 section 8.1. */
const NONCE_HEADER = 'dpop-nonce';

/** Tokens in `Authorization`: each is judged once in a while, and whether this client may present it, every time. */
export class TokenAuthenticator implements Authenticator {
  readonly challenges: readonly string[];
  readonly #judge: TokenJudge;
  readonly #options: TokenAuthenticatorOptions;
  readonly #cache: TokenCache<VerifiedToken>;
  readonly #proofs: DpopProofs;
  #generation: number;

  constructor(judge: TokenJudge, options: TokenAuthenticatorOptions) {
    this.#judge = judge;
    this.#options = options;
    this.#cache = new TokenCache(options.maxCachedTokens);
    this.#proofs = new DpopProofs(options.clock, options.nonces);
    this.#generation = judge.generation;
    this.challenges = [options.binding === 'dpop' ? DPOP_CHALLENGE : 'Bearer'];
  }

  authenticate(request: EdgeRequest): Promise<AuthResult> | AuthResult {
    const credential = tokenCredentialOf(request);
    if (credential === undefined) return { outcome: 'absent' };
    if (credential === 'malformed') return refused(400, 'Authorization holds no token', 'invalid_request');
    const verified = this.#verified(credential.token);
    if (!(verified instanceof Promise)) return this.#presented(request, credential, verified);
    return verified.then((judged) => this.#presented(request, credential, judged));
  }

  /** A token that is good may still not be this client's. */
  #presented(
    request: EdgeRequest,
    { scheme, token }: TokenCredential,
    verified: VerifiedToken | Refused,
  ): Promise<AuthResult> | AuthResult {
    if ('outcome' in verified) return verified;
    const { binding } = this.#options;
    const { principal, confirmation } = verified;
    if (binding !== undefined && confirmation?.kind !== binding) {
      return refused(401, `the token is not bound by ${binding}`);
    }
    if ((scheme === 'dpop') !== (confirmation?.kind === 'dpop')) {
      // RFC 9449 section 7.2: a bound token must not pass as one that whoever has it may present.
      return refused(401, `the token was presented as ${scheme}, and it is not of that kind`);
    }
    if (confirmation?.kind === 'certificate') {
      const problem = certificateProblem(request.clientCertificate, confirmation);
      if (problem !== undefined) return refused(401, problem);
    }
    return confirmation?.kind === 'dpop'
      ? this.#proven(request, token, principal, confirmation)
      : { outcome: 'authenticated', principal };
  }

  async #proven(
    request: EdgeRequest,
    token: string,
    principal: Principal,
    confirmation: Extract<Confirmation, { kind: 'dpop' }>,
  ): Promise<AuthResult> {
    const { nonces } = this.#options;
    const verdict = await this.#proofs.judge(request, token, confirmation);
    const next = nonces && ('reason' in verdict || verdict.nonceIsLate) ? { [NONCE_HEADER]: nonces.current() } : {};
    if ('reason' in verdict) {
      const { status, reason, error } = verdict;
      return { ...refused(status, reason, error), challenges: [DPOP_CHALLENGE], headers: next };
    }
    return { outcome: 'authenticated', principal, headers: next };
  }

  async close(): Promise<void> {
    this.#judge.close();
    this.#cache.clear();
  }

  #verified(token: string): Promise<VerifiedToken | Refused> | VerifiedToken {
    const { generation } = this.#judge;
    if (generation !== this.#generation) {
      this.#cache.clear();
      this.#generation = generation;
    }
    // By its hash: whoever reads the memory of the process finds no tokens here.
    const key = hash('sha256', token, 'base64url');
    return this.#cache.get(key, this.#options.clock.now()) ?? this.#judged(token, key, generation);
  }

  async #judged(token: string, key: string, generation: number): Promise<VerifiedToken | Refused> {
    const { clock, cacheMs } = this.#options;
    const judged = await this.#judge.judge(token);
    if ('outcome' in judged) return judged;
    // Keys that changed meanwhile may be others than those that have verified it.
    if (this.#judge.generation === generation) {
      this.#cache.set(key, judged, Math.min(judged.principal.expiresAt, clock.now() + cacheMs));
    }
    return judged;
  }
}

export function refused(status: Refused['status'], reason: string, error = 'invalid_token'): Refused {
  return { outcome: 'refused', status, error, reason };
}
