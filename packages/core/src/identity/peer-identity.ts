import type { X509Certificate } from 'node:crypto';
import type { SpiffeId } from './spiffe-id.js';

/** Who is at the other end of a connection: verified by OpenSSL and by the leaf check, parsed once per connection. */
export interface PeerIdentity {
  /** `spiffe://prod.acme/svc/web` */
  readonly id: string;
  readonly spiffeId: SpiffeId;
  /** Serial number of the leaf, upper-case hexadecimal. */
  readonly serial: string;
  /** SHA-256 of the leaf's DER, `AA:BB:…` */
  readonly fingerprint: string;
  /** End of the leaf's validity, ms since the epoch. */
  readonly notAfter: number;
}

/** Sums up a verified leaf; `id` is what the leaf check found in it. */
export function peerIdentityOf(leaf: X509Certificate, id: SpiffeId): PeerIdentity {
  return Object.freeze({
    id: id.toString(),
    spiffeId: id,
    serial: leaf.serialNumber,
    fingerprint: leaf.fingerprint256,
    notAfter: Date.parse(leaf.validTo),
  });
}
