import { createHash, X509Certificate } from 'node:crypto';
import { checkLeaf } from './leaf-check.js';
import { type PeerIdentity, peerIdentityOf } from './peer-identity.js';

/** Some hundreds of bytes each. */
const MAX_KNOWN = 1000;

/** By the SHA-256 of the DER. A peer shows the same certificate until it renews it, and reading one takes a tenth of a handshake. */
const known = new Map<string, PeerIdentity>();

export type LeafReading =
  | { readonly ok: true; readonly peer: PeerIdentity }
  | { readonly ok: false; readonly reason: string };

/**
 * Applies `checkLeaf` to a leaf and sums it up. What only depends on its bytes is remembered, and only of leaves that fit: whether it
 * is trusted, expired or revoked is asked each time, elsewhere. Never throws.
 */
export function readLeaf(raw: Uint8Array, leaf?: X509Certificate): LeafReading {
  const hash = createHash('sha256').update(raw).digest('base64');
  const seen = known.get(hash);
  if (seen) return { ok: true, peer: seen };
  const verdict = checkLeaf(raw);
  if (!verdict.ok) return verdict;
  const peer = peerIdentityOf(leaf ?? new X509Certificate(raw), verdict.id);
  const [oldest] = known.keys();
  if (known.size >= MAX_KNOWN && oldest !== undefined) known.delete(oldest);
  known.set(hash, peer);
  return { ok: true, peer };
}
