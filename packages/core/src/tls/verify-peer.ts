import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { HandshakeRefusal } from '../events/events.js';
import { readLeaf } from '../identity/known-leaves.js';
import { checkSigner } from '../identity/leaf-check.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import { findPath } from './certificate-path.js';
import type { TlsTrust } from './context.js';
import { isRevoked, revocationKeyOf, revocationKeysOf } from './revocation.js';

/** Issuers that a peer may present. What lies beyond would be seen by OpenSSL and not by us. */
const MAX_PRESENTED = 8;

/** What a peer has shown in the handshake. */
export interface PresentedPeer {
  /** The leaf in DER. */
  readonly raw: Uint8Array;
  /** The same as the runtime has read it; left out: it is read again, which takes a tenth of a handshake. */
  readonly leaf?: X509Certificate;
  /** Its issuers, as far as the runtime tells. */
  readonly chain?: readonly X509Certificate[];
  /** The trust domain whose bundle alone OpenSSL trusted, as on a client; left out: all bundles, as on a server. */
  readonly verifiedFor?: string;
}

export type PeerVerdict =
  | {
      readonly ok: true;
      readonly peer: PeerIdentity;
      /** Of its certificate and of those above it: see `revocationKeysOf`. */
      readonly revocationKeys: readonly string[];
    }
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
export function verifyPeer(presented: PresentedPeer, material: TlsTrust, now = Date.now()): PeerVerdict {
  const reading = readLeaf(presented.raw, presented.leaf);
  if (!reading.ok) return { ok: false, reason: 'invalid-svid', detail: reading.reason };
  const { peer } = reading;
  const refuse = (reason: HandshakeRefusal, detail: string): PeerVerdict => ({
    ok: false,
    reason,
    detail,
    peer: peer.id,
  });

  const leaf = presented.leaf ?? new X509Certificate(presented.raw);
  const domain = peer.spiffeId.trustDomain;
  const anchors = material.bundles.get(domain);
  if (anchors === undefined) return refuse('wrong-trust-domain', `there is no trust bundle for ${domain}`);
  const proven = presented.verifiedFor ?? (material.bundles.size === 1 ? domain : undefined);
  const issuers = () => (presented.chain ?? []).filter((issuer) => maySign(issuer, material, now));
  if (proven === undefined ? !findPath(leaf, issuers(), anchors) : proven !== domain) {
    return refuse('wrong-trust-domain', `its chain does not end in the trust bundle of ${domain}`);
  }
  if (peer.notAfter <= now) return refuse('expired', `its certificate expired on ${leaf.validTo}`);
  const revocation = judgeRevocation({ ...presented, leaf }, domain, material, now);
  if (!revocation.ok) return refuse(revocation.reason, revocation.detail);
  return { ok: true, peer, revocationKeys: revocation.revocationKeys };
}

export type RevocationVerdict =
  | { readonly ok: true; readonly revocationKeys: readonly string[] }
  | { readonly ok: false; readonly reason: HandshakeRefusal; readonly detail: string };

/**
 * Judges by the revocation lists alone whoever OpenSSL has accepted for the bundle of `trustDomain`: for servers that are
 * known by their host name and have no SPIFFE ID; `verifyPeer` does it for all others. Never throws.
 *
 * OpenSSL has judged the chain by the lists as they were when the handshake began, and in their grace not at all. In the
 * grace, and where a certificate of the peer is revoked meanwhile, there must be a chain that OpenSSL would accept by now: none
 * of its certificates is revoked, and in the grace each authority in it has a list that still counts.
 */
export function judgeRevocation(
  { raw, leaf = new X509Certificate(raw), chain = [] }: PresentedPeer,
  trustDomain: string,
  material: TlsTrust,
  now = Date.now(),
): RevocationVerdict {
  if (isRevoked(material, revocationKeyOf(leaf))) {
    return { ok: false, reason: 'revoked', detail: `its certificate ${leaf.serialNumber} is revoked` };
  }
  if (chain.length > MAX_PRESENTED) {
    return { ok: false, reason: 'revocation-unknown', detail: 'it presents more issuers than anybody has' };
  }
  const { lists = [], crls } = material;
  const anchors = material.bundles.get(trustDomain) ?? [];
  const above = [...lists.map(({ authority }) => authority), ...anchors, ...chain];
  const revocationKeys = revocationKeysOf(leaf, above);
  const revoked = revocationKeys.some((key) => isRevoked(material, key));
  const inGrace = lists.length > 0 && crls.length === 0;
  if (!revoked && !inGrace) return { ok: true, revocationKeys };

  const listed = lists.filter(({ closesAt }) => closesAt > now).map(({ authority }) => authority);
  const issuers = (inGrace ? listed : above).filter((issuer) => maySign(issuer, material, now));
  const roots = issuers.filter((issuer) => anchors.includes(issuer) && isSelfIssued(issuer));
  const path = findPath(leaf, issuers, roots);
  if (path) return { ok: true, revocationKeys: path.map(revocationKeyOf) };
  return revoked
    ? { ok: false, reason: 'revoked', detail: 'an authority above its certificate is revoked' }
    : { ok: false, reason: 'revocation-unknown', detail: 'not every authority above its certificate has a list' };
}

function isSelfIssued(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate);
}

/**
 * Whether an issuer counts as one now. OpenSSL has accepted *a* chain, not necessarily this one: a CA of another domain can certify the key of an intermediate
 * that has expired or was revoked, and so pass OpenSSL with what may prove nothing any more.
 */
export function maySign(issuer: X509Certificate, material: TlsTrust, now: number): boolean {
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
  for (let at = leaf.issuerCertificate; at && at !== chain.at(-1); at = at.issuerCertificate) {
    // One more than may be, so that who presents too many is known.
    if (chain.push(at) > MAX_PRESENTED) break;
  }
  return { raw: leaf.raw, leaf, chain };
}
