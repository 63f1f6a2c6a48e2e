import { createHash } from 'node:crypto';
import type { Clock } from '@sallyport/core/spi';
import { calculateJwkThumbprint, EmbeddedJWK, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import type { EdgeRequest } from '../edge-request.js';
import type { Confirmation } from './confirmation.js';
import type { DpopNonces } from './dpop-nonces.js';
import { judgeKey, KeySetError } from './key-set.js';
import { SeenProofs } from './seen-proofs.js';

/** Of proofs. Asymmetric ones alone: the key stands in the proof for everybody to read. */
export const DPOP_ALGORITHMS = ['ES256', 'ES384', 'EdDSA', 'Ed25519', 'PS256', 'RS256'] as const;

/** How old a proof may be, and how far its clock may be ahead. */
const MAX_AGE_MS = 60_000;
const MAX_AHEAD_MS = 5000;
const MAX_PROOF_BYTES = 4096;
const MAX_JTI_LENGTH = 256;
/** Proofs that are remembered: 3,000 a second within the age. More are refused, for a forgotten one could come again. */
const MAX_REMEMBERED = 200_000;

/**
 * By the hash of key and `jti`. One for the process: a gateway that is configured anew opens its handlers anew, and a proof must
 * not be good once more after it.
 */
const seen = new SeenProofs(MAX_REMEMBERED, MAX_REMEMBERED / 10);

export interface ProofProblem {
  readonly status: 401 | 503;
  readonly reason: string;
  /** RFC 9449 sections 7.1 and 9. */
  readonly error: 'invalid_dpop_proof' | 'use_dpop_nonce';
}

/** A proof that is good. `nonceIsLate`: the next one should hold another nonce. */
export interface GoodProof {
  readonly nonceIsLate: boolean;
}

/** Judges proofs of possession (RFC 9449 section 4.3), each of which is good for one request. */
export class DpopProofs {
  readonly #clock: Clock;
  readonly #nonces: DpopNonces | undefined;

  /** With `nonces` a proof must hold one. */
  constructor(clock: Clock, nonces?: DpopNonces) {
    this.#clock = clock;
    this.#nonces = nonces;
  }

  /** Whether the request proves that it comes from whom the token was issued to. */
  async judge(request: EdgeRequest, token: string, { thumbprint }: Confirmation): Promise<ProofProblem | GoodProof> {
    const proof = request.headers.dpop;
    if (proof === undefined) return wrong('the token is bound to a key, and there is no proof of it');
    if (proof.length > MAX_PROOF_BYTES) return wrong('the proof is too long');
    try {
      const { payload } = await jwtVerify(proof, boundKey(thumbprint), {
        typ: 'dpop+jwt',
        algorithms: [...DPOP_ALGORITHMS],
        currentDate: new Date(this.#clock.now()),
        requiredClaims: ['jti', 'htm', 'htu', 'iat', 'ath'],
      });
      const nonce = this.#nonces?.judge(payload.nonce);
      return (
        this.#claimsProblem(request, token, payload) ??
        (this.#nonces && nonce === undefined ? withoutNonce(payload) : undefined) ??
        this.#replayProblem(thumbprint, payload) ?? { nonceIsLate: nonce === 'late' }
      );
    } catch (error) {
      if (error instanceof errors.JOSEError) return wrong(`the proof is not valid: ${error.code}`);
      if (error instanceof ForeignKeyError) return wrong(error.message);
      if (error instanceof KeySetError) return wrong(`the key of the proof cannot be used: ${error.message}`);
      return wrong('the proof cannot be verified');
    }
  }

  #claimsProblem(request: EdgeRequest, token: string, payload: JWTPayload): ProofProblem | undefined {
    const now = this.#clock.now();
    const issuedAt = (payload.iat ?? 0) * 1000;
    if (payload.htm !== request.method) return wrong('the proof is for another method');
    if (addressOf(payload.htu) !== addressOf(request.origin + request.path))
      return wrong('the proof is for another address');
    if (issuedAt < now - MAX_AGE_MS || issuedAt > now + MAX_AHEAD_MS)
      return wrong('the proof is too old, or of the future');
    const hash = createHash('sha256').update(token).digest('base64url');
    return payload.ath === hash ? undefined : wrong('the proof is for another token');
  }

  #replayProblem(thumbprint: string, { jti }: JWTPayload): ProofProblem | undefined {
    if (typeof jti !== 'string' || jti === '' || jti.length > MAX_JTI_LENGTH)
      return wrong('the proof has no usable id');
    const now = this.#clock.now();
    const id = createHash('sha256').update(`${thumbprint} ${jti}`).digest('base64url');
    switch (seen.add(id, thumbprint, now + MAX_AGE_MS + MAX_AHEAD_MS, now)) {
      case 'new':
        return undefined;
      case 'used':
        return wrong('the proof was used before');
      case 'full':
        return { status: 503, reason: 'more proofs came than can be remembered', error: 'invalid_dpop_proof' };
    }
  }
}

class ForeignKeyError extends Error {
  override readonly name = 'ForeignKeyError';
}

/** Before anything is verified by it: the key is the client's choice, and there are keys by which to verify takes long. */
function boundKey(thumbprint: string): JWTVerifyGetKey {
  return async (header, token) => {
    const jwk = header.jwk ?? {};
    judgeKey(jwk as Readonly<Record<string, unknown>>);
    if ((await calculateJwkThumbprint(jwk, 'sha256')) !== thumbprint) {
      throw new ForeignKeyError('the proof is of another key than the token is bound to');
    }
    return EmbeddedJWK(header, token);
  };
}

/** Without query and fragment (RFC 9449 section 4.3, item 9), in one spelling; undefined where it is no address. */
function addressOf(text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined;
  try {
    const { origin, pathname } = new URL(text);
    return origin + pathname;
  } catch {
    return undefined;
  }
}

function wrong(reason: string): ProofProblem {
  return { status: 401, reason, error: 'invalid_dpop_proof' };
}

function withoutNonce({ nonce }: JWTPayload): ProofProblem {
  const reason =
    nonce === undefined ? 'the proof holds no nonce' : 'the nonce of the proof is none of ours, or too old';
  return { status: 401, reason, error: 'use_dpop_nonce' };
}
