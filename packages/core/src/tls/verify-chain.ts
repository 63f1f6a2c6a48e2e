import type { X509Certificate } from 'node:crypto';
import { findPath } from './certificate-path.js';
import type { TlsMaterial } from './source.js';
import { maySign, type PeerVerdict, verifyPeer } from './verify-peer.js';

/**
 * Judges a certificate that came in another way than a handshake, so that no OpenSSL has looked at it: `chain` is the leaf and
 * its intermediates. The same rules as for a peer, and besides the path to the bundle of its trust domain and the dates of
 * everything on it. Never throws.
 */
export function verifyChain(chain: readonly X509Certificate[], material: TlsMaterial, now: number): PeerVerdict {
  const [leaf, ...others] = chain;
  if (leaf === undefined) return { ok: false, reason: 'no-certificate', detail: 'there is no certificate' };
  for (const [domain, anchors] of material.bundles) {
    const verdict = verifyPeer({ raw: leaf.raw, verifiedFor: domain }, material, now);
    if (!verdict.ok && verdict.reason === 'wrong-trust-domain') continue;
    if (!verdict.ok) return verdict;
    const refuse = (reason: 'not-yet-valid' | 'untrusted-issuer', detail: string): PeerVerdict => {
      return { ok: false, reason, detail, peer: verdict.peer.id };
    };
    if (Date.parse(leaf.validFrom) > now) return refuse('not-yet-valid', `it is valid only from ${leaf.validFrom}`);
    const usable = (certificates: readonly X509Certificate[]) =>
      certificates.filter((certificate) => maySign(certificate, material, now));
    if (!findPath(leaf, usable(others), usable(anchors))) {
      return refuse('untrusted-issuer', `its chain does not end in the trust bundle of ${domain}`);
    }
    return verdict;
  }
  return { ok: false, reason: 'wrong-trust-domain', detail: 'there is no trust bundle for its domain' };
}
