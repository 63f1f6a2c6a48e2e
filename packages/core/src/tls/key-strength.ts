import type { X509Certificate } from 'node:crypto';

const strongCurves: ReadonlySet<string | undefined> = new Set(['prime256v1', 'secp384r1', 'secp521r1']);
const MIN_RSA_BITS = 2048;

/** Whether the key of a certificate is one of those that are trusted: P-256 and up, Ed25519, RSA of at least 2048 bits. */
export function hasStrongKey({ publicKey }: X509Certificate): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = publicKey;
  return (
    type === 'ed25519' ||
    (type === 'ec' && strongCurves.has(details.namedCurve)) ||
    ((type === 'rsa' || type === 'rsa-pss') && (details.modulusLength ?? 0) >= MIN_RSA_BITS)
  );
}
