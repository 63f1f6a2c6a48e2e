/**
 * What the authority refuses to do.
 *
 * - `algorithm-unknown`: not one of P-256, P-384 and Ed25519.
 * - `id-malformed`, `trust-domain-malformed`: not what the SPIFFE-ID specification allows.
 * - `id-foreign`: the id belongs to another trust domain than the authority.
 * - `name-malformed`: a DNS name or an IP address that cannot stand in a certificate.
 * - `validity`: the certificate would never be valid, e.g. the authority itself has expired.
 * - `path-length`: the authority may not have authorities below it.
 * - `csr-malformed`, `csr-signature`, `key-weak`: a request that no certificate is issued for.
 * - `serial-malformed`: not a serial number in hexadecimal.
 * - `file-name`, `file-unreadable`, `file-exposed`, `file-malformed`: a file that is not written, or not trusted.
 */
export type PkiErrorCode =
  | 'algorithm-unknown'
  | 'csr-malformed'
  | 'csr-signature'
  | 'file-exposed'
  | 'file-malformed'
  | 'file-name'
  | 'file-unreadable'
  | 'id-foreign'
  | 'id-malformed'
  | 'key-weak'
  | 'name-malformed'
  | 'path-length'
  | 'serial-malformed'
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
