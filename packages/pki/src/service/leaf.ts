import type { KeyObject } from 'node:crypto';
import { BACKDATE_MS, draftCertificate } from '../certificate.js';
import { PkiError } from '../errors.js';
import type { IssuedCertificate } from '../identity.js';
import { toPem } from '../pem.js';
import { signedBy } from '../signer.js';
import type { Issuer } from './issuers.js';

export interface LeafOptions {
  /** The only name in it. */
  readonly id: string;
  readonly publicKey: KeyObject;
  /** Ms since the epoch. */
  readonly now: number;
  readonly ttlMs: number;
}

/** A leaf never outlives its issuer. Throws a `PkiError`: `validity` when the issuer is about to expire, `signer-failed`. */
export async function signLeaf(issuer: Issuer, { id, publicKey, now, ttlMs }: LeafOptions): Promise<IssuedCertificate> {
  const end = Math.min(now + ttlMs, issuer.fields.notAfter);
  if (end - now < 1000) throw new PkiError('validity', 'the issuer has expired: renew it');
  const { content, serial, notAfter } = draftCertificate(
    {
      subjectPublicKey: publicKey,
      notBefore: now - BACKDATE_MS,
      notAfter: end,
      subjectAltName: { names: [{ uri: id }] },
    },
    { publicKey: issuer.key.publicKey, fields: issuer.fields },
  );
  const pem = toPem('CERTIFICATE', await signedBy(content, issuer.key));
  return { certificatePem: pem + issuer.chainPem, serial, notAfter };
}
