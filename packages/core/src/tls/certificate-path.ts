import type { X509Certificate } from 'node:crypto';

/** OpenSSL builds deeper chains; nobody issues them. */
const MAX_CHAIN = 8;
/** Each step costs a signature check; a crafted bag of certificates must not cost more. */
const MAX_SIGNATURE_CHECKS = 32;

/**
 * The path from `leaf` to one of the `anchors`: the leaf, then its issuers up to and with the anchor; undefined if there is
 * none. `intermediates` may stand in any order and need not be trusted. Signatures and names are checked by OpenSSL, dates
 * are not.
 */
export function findPath(
  leaf: X509Certificate,
  intermediates: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
): readonly X509Certificate[] | undefined {
  let checks = MAX_SIGNATURE_CHECKS;

  function issued(issuer: X509Certificate, subject: X509Certificate): boolean {
    if (!issuer.ca || !subject.checkIssued(issuer) || checks === 0) return false;
    checks--;
    return subject.verify(issuer.publicKey);
  }

  function climb(path: readonly X509Certificate[]): readonly X509Certificate[] | undefined {
    const top = path.at(-1);
    if (top === undefined || path.length > MAX_CHAIN) return undefined;
    const anchor = anchors.find((candidate) => issued(candidate, top));
    if (anchor) return [...path, anchor];
    for (const next of intermediates) {
      if (path.some((passed) => passed.raw.equals(next.raw)) || !issued(next, top)) continue;
      const found = climb([...path, next]);
      if (found) return found;
    }
    return undefined;
  }

  return climb([leaf]);
}
