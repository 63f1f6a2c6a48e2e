import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { HandshakeRefusal } from '../events/events.js';
import { checkLeaf, checkSigner } from '../identity/leaf-check.js';
import { type PeerIdentity, peerIdentityOf } from '../identity/peer-identity.js';
import { findPath } from './certificate-path.js';
import { isRevoked, revocationKeyOf } from './revocation.js';
import type { TlsMaterial } from './source.js';

/** What a peer has shown in the handshake. */
export interface PresentedPeer {
  /** The leaf in DER. */
  readonly raw: Uint8Array;
  /** Its issuers, as far as the runtime tells. */
  readonly chain?: readonly X509Certificate[];
  /** The trust domain whose bundle alone OpenSSL trusted, as on a client; left out: all bundles, as on a server. */
  readonly verifiedFor?: string;
}

export type PeerVerdict =
  | { readonly ok: true; readonly peer: PeerIdentity }
  | {
      readonly ok: false;
      readonly reason: HandshakeRefusal;
      readonly detail: string;
      /** The SPIFFE ID it claimed, as far as it could be read. */
      readonly peer?: string;
    };

/**
 * Judges a peer whose chain OpenSSL has accepted by everything OpenSSL does not know: the rules of X509-SVID, trust domains
 * and pushed revocation. Once per connection, on both sides. Never throws.
 *
 * A server that trusts several domains proves that the chain ends in the bundle of the domain that the leaf names: else
 * every CA could issue identities of every domain. Where the runtime hides the issuers (Node 24 does after a full
 * handshake) that takes the signing intermediates in the bundle; a chain that cannot be proven is refused.
 */
export function verifyPeer(presented: PresentedPeer, material: TlsMaterial, now = Date.now()): PeerVerdict {
  const verdict = checkLeaf(presented.raw);
  if (!verdict.ok) return { ok: false, reason: 'invalid-svid', detail: verdict.reason };
  const refuse = (reason: HandshakeRefusal, detail: string): PeerVerdict => ({
    ok: false,
    reason,
    detail,
    peer: verdict.id.toString(),
  });

  const leaf = new X509Certificate(presented.raw);
  const domain = verdict.id.trustDomain;
  const anchors = material.bundles.get(domain);
  if (anchors === undefined) return refuse('wrong-trust-domain', `there is no trust bundle for ${domain}`);
  const proven = presented.verifiedFor ?? (material.bundles.size === 1 ? domain : undefined);
  const issuers = () => (presented.chain ?? []).filter((issuer) => maySign(issuer, material, now));
  if (proven === undefined ? !findPath(leaf, issuers(), anchors) : proven !== domain) {
    return refuse('wrong-trust-domain', `its chain does not end in the trust bundle of ${domain}`);
  }
  if (Date.parse(leaf.validTo) <= now) return refuse('expired', `its certificate expired on ${leaf.validTo}`);
  if (isRevoked(material, revocationKeyOf(leaf)))
    return refuse('revoked', `its certificate ${leaf.serialNumber} is revoked`);
  return { ok: true, peer: peerIdentityOf(leaf, verdict.id) };
}

/**
 * Whether an issuer counts as one now. OpenSSL has accepted *a* chain, not necessarily this one: a CA of another domain can certify the key of an intermediate
 * that has expired or was revoked, and so pass OpenSSL with what may prove nothing any more.
 */
export function maySign(issuer: X509Certificate, material: TlsMaterial, now: number): boolean {
  return (
    checkSigner(issuer.raw).ok &&
    Date.parse(issuer.validTo) > now &&
    Date.parse(issuer.validFrom) <= now &&
    !isRevoked(material, revocationKeyOf(issuer))
  );
}

/** What the other end of a connection has shown; undefined if it has shown no certificate. */
export function presentedPeer(socket: TLSSocket): PresentedPeer | undefined {
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return undefined;
  const chain: X509Certificate[] = [];
  // A self-signed root is its own issuer.
  for (let at = leaf.issuerCertificate; at && at !== chain.at(-1) && chain.length < 8; at = at.issuerCertificate) {
    chain.push(at);
  }
  return { raw: leaf.raw, chain };
}
