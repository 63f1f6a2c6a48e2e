import { createHash, type X509Certificate } from 'node:crypto';
import { readProfile } from '../identity/certificate-profile.js';
import { type Crl, parseCrl, verifyCrl } from '../identity/crl.js';
import { checkSigner } from '../identity/leaf-check.js';
import type { TlsMaterial } from './source.js';

/**
 * Names a certificate in a set of revoked ones: `<SHA-256 of the issuer's name>/<serial>`. The name as OpenSSL prints it, in
 * lower case: like OpenSSL, and unlike DER, it does not care which type of string a name is written in.
 */
export function revocationKeyOf({ issuer, serialNumber }: X509Certificate): string {
  return revocationKey(issuer, serialNumber);
}

/** An empty name is undefined, whatever the types of Node say. */
function revocationKey(issuer: string | undefined, serial: string): string {
  return `${createHash('sha256')
    .update((issuer ?? '').toLowerCase())
    .digest('hex')}/${serial}`;
}

/** Whether the material's revocation lists name the certificate. Cheap: a live connection may ask on each call. */
export function isRevoked(material: Pick<TlsMaterial, 'revoked'>, key: string): boolean {
  return material.revoked.has(key);
}

export interface RevocationLists {
  readonly revoked: ReadonlySet<string>;
  /** Why the lists cannot be used; empty when they can. */
  readonly problems: readonly string[];
}

/**
 * Reads revocation lists (DER) and checks that they are signed by one of the `authorities`, current, and that each of the
 * `issuers` has one: with lists in use, OpenSSL refuses every chain in which an issuer lacks a current one.
 */
export function readRevocationLists(
  lists: readonly Uint8Array[],
  authorities: readonly X509Certificate[],
  issuers: readonly X509Certificate[],
  now: number,
): RevocationLists {
  const problems: string[] = [];
  const revoked = new Set<string>();
  const covered = new Set<X509Certificate>();
  lists.forEach((der, index) => {
    const which = lists.length > 1 ? `list number ${index + 1}` : 'the list';
    const crl = tryParse(der);
    if (typeof crl === 'string') {
      problems.push(`${which} is damaged: ${crl}`);
      return;
    }
    const signers = authorities.filter((ca) => isNamed(ca, crl.issuerDer) && verifyCrl(crl, ca.publicKey));
    if (signers.length === 0) problems.push(`${which} is not signed by a CA of the bundle or the chain`);
    if (crl.thisUpdate > now) problems.push(`${which} is not valid yet`);
    if (crl.nextUpdate <= now)
      problems.push(`${which} is past its next update (${new Date(crl.nextUpdate).toISOString()})`);
    for (const signer of signers) {
      covered.add(signer);
      for (const serial of crl.revokedSerials) revoked.add(revocationKey(signer.subject, serial));
    }
  });
  for (const issuer of issuers) {
    if (!covered.has(issuer)) problems.push(`there is no list of the issuer ${nameOf(issuer)}`);
  }
  return { revoked, problems };
}

function nameOf({ subject, serialNumber }: X509Certificate): string {
  return subject?.replaceAll('\n', ', ') ?? `with the certificate ${serialNumber}`;
}

function tryParse(der: Uint8Array): Crl | string {
  try {
    return parseCrl(der);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** A certificate that cannot be read, which is somebody else's complaint, has no name. */
function isNamed(certificate: X509Certificate, nameDer: Uint8Array): boolean {
  return checkSigner(certificate.raw).ok && Buffer.compare(readProfile(certificate.raw).subject, nameDer) === 0;
}
