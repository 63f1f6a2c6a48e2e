/**
 * What the authority refuses to do, and what is refused of an authority.
 *
 * - `algorithm-unknown`: not one of P-256, P-384 and Ed25519.
 * - `id-malformed`, `trust-domain-malformed`: not what the SPIFFE-ID specification allows.
 * - `id-foreign`: the id belongs to another trust domain than the authority.
 * - `name-malformed`: a DNS name or an IP address that cannot stand in a certificate.
 * - `validity`: the certificate would never be valid, e.g. the authority itself has expired.
 * - `path-length`: the authority may not have authorities below it.
 * - `csr-malformed`, `csr-signature`, `key-weak`: a request that no certificate is issued for.
 * - `csr-excessive`: a request for other names than its sender may have, or for the powers of an authority.
 * - `serial-malformed`: not a serial number in hexadecimal.
 * - `issuer-unavailable`: an authority gave no answer, or none that can be understood; try again later.
 * - `issuer-refused`: an authority refused to issue; `join-token-refused`: because the join token is unknown, expired or used.
 * - `material-refused`: what an authority issued must not be used, e.g. a certificate of another identity.
 * - `passphrase-weak`: too short to guard the key of an authority.
 * - `signer-failed`: a key outside of this process did not sign.
 * - `request-refused`: a join token or a revocation that the authority does not grant its own operator either.
 * - `store-busy`, `store-damaged`, `store-failed`: the store of an authority is in use, was changed by something else than a
 *   crash, or cannot be written now.
 * - `file-name`, `file-unreadable`, `file-exposed`, `file-malformed`: a file that is not written, or not trusted.
 */
export type PkiErrorCode =
  | 'algorithm-unknown'
  | 'csr-excessive'
  | 'csr-malformed'
  | 'csr-signature'
  | 'file-exposed'
  | 'file-malformed'
  | 'file-name'
  | 'file-unreadable'
  | 'id-foreign'
  | 'id-malformed'
  | 'issuer-refused'
  | 'issuer-unavailable'
  | 'join-token-refused'
  | 'key-weak'
  | 'material-refused'
  | 'name-malformed'
  | 'passphrase-weak'
  | 'path-length'
  | 'request-refused'
  | 'serial-malformed'
  | 'signer-failed'
  | 'store-busy'
  | 'store-damaged'
  | 'store-failed'
  | 'trust-domain-malformed'
  | 'validity';

/** A refusal of the authority; `code` is stable, the wording is not. */
export class PkiError extends Error {
  override readonly name = 'PkiError';
  readonly code: PkiErrorCode;

  constructor(code: PkiErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
