import { createPrivateKey, randomUUID } from 'node:crypto';
import type { Clock } from '../clock.js';
import { derOf, pemBlocks } from '../tls/pem.js';
import type { TlsHandle, TlsMaterial } from '../tls/source.js';
import { jwsAlgorithmOf } from './jws-algorithm.js';
import { MAX_USER_TOKEN_MS, USER_TOKEN_TYPE, type UserStatement } from './user.js';

export interface SignedUser {
  readonly token: string;
  /** Ms since the epoch. */
  readonly expiresAt: number;
}

/** Vouches for users with the key of its own certificate, which goes along so that the service can verify it. */
export class UserSigner {
  readonly #tls: TlsHandle;
  readonly #clock: Clock;
  #key: { readonly material: TlsMaterial; readonly sign: (payload: object) => string } | undefined;

  constructor(tls: TlsHandle, clock: Clock) {
    this.#tls = tls;
    this.#clock = clock;
  }

  /** Grows when the certificate is renewed; tokens signed before stay good. */
  get generation(): number {
    return this.#tls.current().generation;
  }

  /** A token for one service, `audience` being its SPIFFE ID, for at most 60 s and never past the end of the proof. */
  sign({ subject, issuer, scopes, claims, method, expiresAt }: UserStatement, audience: string): SignedUser {
    const material = this.#tls.current();
    const now = this.#clock.now();
    const iat = Math.floor(now / 1000);
    const exp = Math.min(iat + MAX_USER_TOKEN_MS / 1000, Math.ceil(expiresAt / 1000));
    const token = this.#signer(material)({
      iss: material.identity.toString(),
      aud: audience,
      sub: subject,
      iat,
      exp,
      jti: randomUUID(),
      idp: issuer,
      amr: method,
      scope: [...scopes].join(' '),
      claims,
      end: expiresAt,
    });
    return { token, expiresAt: exp * 1000 };
  }

  #signer(material: TlsMaterial): (payload: object) => string {
    if (this.#key?.material === material) return this.#key.sign;
    const privateKey = createPrivateKey(material.privateKey());
    const algorithm = jwsAlgorithmOf(privateKey);
    const x5c = pemBlocks(material.certificateChain).map((block) => Buffer.from(derOf(block)).toString('base64'));
    const header = encoded({ alg: algorithm.name, typ: USER_TOKEN_TYPE, x5c });
    const sign = (payload: object) => {
      const signed = `${header}.${encoded(payload)}`;
      return `${signed}.${algorithm.sign(signed, privateKey).toString('base64url')}`;
    };
    this.#key = { material, sign };
    return sign;
  }
}

function encoded(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url');
}
