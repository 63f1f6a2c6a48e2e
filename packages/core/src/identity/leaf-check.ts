import { type CertificateProfile, readProfile } from './certificate-profile.js';
import { parseSpiffeId, parseTrustDomain, type SpiffeId } from './spiffe-id.js';

export type LeafVerdict = { readonly ok: true; readonly id: SpiffeId } | Refused;
/** `trustDomain` is undefined for a CA that carries no SPIFFE ID. */
export type SignerVerdict = { readonly ok: true; readonly trustDomain: string | undefined } | Refused;

interface Refused {
  readonly ok: false;
  readonly reason: string;
}

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/**
 * Applies the rules of X509-SVID §2, §4 and §5.2 to a leaf that OpenSSL has already verified up to a trusted CA, and
 * returns the identity it speaks for. Node and gRPC check none of this: they accept a CA certificate as a workload, two
 * URIs, or none.
 *
 * Stricter than the specification in one point: extended key usage must be present with both serverAuth and clientAuth,
 * where X509-SVID lets it be absent. A leaf without it would be good for anything, code signing included.
 *
 * Never throws, whatever the bytes.
 */
export function checkLeaf(raw: Uint8Array): LeafVerdict {
  return verdict(() => {
    const profile = readProfile(raw);
    leafRules(profile);
    return { ok: true, id: parseSpiffeId(onlyUri(profile)) };
  });
}

/**
 * Applies the rules for signing certificates: they may sign certificates, and their SPIFFE ID, if they carry one, names
 * the trust domain alone. Never throws.
 */
export function checkSigner(raw: Uint8Array): SignerVerdict {
  return verdict(() => {
    const profile = readProfile(raw);
    if (!profile.isAuthority) refuse('it is not a CA certificate (cA=false)');
    if (!profile.keyUsage?.keyCertSign) refuse('its key usage lacks keyCertSign');
    return { ok: true, trustDomain: signerTrustDomain(profile.subjectAltName?.uris ?? []) };
  });
}

function leafRules(profile: CertificateProfile): void {
  if (profile.isAuthority) refuse('it is a CA certificate (cA=true)');
  if (profile.hasPathLength) refuse('it has a path length without being a CA certificate');
  if (profile.keyUsage === undefined) refuse('key usage is missing');
  if (!profile.keyUsage.critical) refuse('key usage is not critical');
  if (!profile.keyUsage.digitalSignature) refuse('key usage lacks digitalSignature');
  if (profile.keyUsage.keyCertSign) refuse('key usage holds keyCertSign');
  if (profile.keyUsage.crlSign) refuse('key usage holds cRLSign');
  if (profile.extendedKeyUsage === undefined) refuse('extended key usage is missing');
  if (!profile.extendedKeyUsage.includes(SERVER_AUTH)) refuse('extended key usage lacks serverAuth');
  if (!profile.extendedKeyUsage.includes(CLIENT_AUTH)) refuse('extended key usage lacks clientAuth');
}

function onlyUri({ subjectAltName, subjectEmpty }: CertificateProfile): string {
  const [uri, ...others] = subjectAltName?.uris ?? [];
  if (subjectAltName === undefined || uri === undefined) refuse('it has no URI in its subject alternative name');
  if (others.length > 0) refuse(`it has ${others.length + 1} URIs in its subject alternative name instead of one`);
  // RFC 5280 §4.2.1.6: with an empty subject the alternative name is the name.
  if (subjectEmpty && !subjectAltName.critical) refuse('the subject is empty but its alternative name is not critical');
  return uri;
}

function signerTrustDomain(uris: readonly string[]): string | undefined {
  const ids = uris.filter((uri) => /^spiffe:/i.test(uri));
  if (ids.length > 1) refuse('it has several SPIFFE IDs');
  return ids[0] === undefined ? undefined : parseTrustDomain(ids[0]);
}

function refuse(reason: string): never {
  throw new TypeError(reason);
}

/** Parsers throw; a verdict is a value. The bytes are a stranger's, so nothing they provoke may escape. */
function verdict<T>(judge: () => T): T | Refused {
  try {
    return judge();
  } catch (error) {
    return { ok: false, reason: error instanceof Error ? error.message : String(error) };
  }
}
