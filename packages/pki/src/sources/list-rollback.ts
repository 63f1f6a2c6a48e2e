import { X509Certificate } from 'node:crypto';
import { type Crl, type PemMaterial, parseCrl, verifyCrl } from '@sallyport/core/spi';
import { fromPem, splitCertificates } from '../pem.js';

/**
 * How the revocation lists of `next` fall behind those of `current`: undefined when they do not. Lists are compared by the
 * authority that signed them, because authorities of different keys may share a name. What cannot be read is somebody
 * else's complaint.
 */
export function listRollback(current: PemMaterial, next: PemMaterial): string | undefined {
  if (current.crl.length > 0 && next.crl.length === 0) return 'the revocation lists are gone';
  const [before, after] = [listsOf(current), listsOf(next)];
  for (const authority of authoritiesOf(current)) {
    const [known, offered] = [latestOf(authority, before), latestOf(authority, after)];
    if (known && offered && isOlder(offered, known)) {
      return `a revocation list is older than the one in use (${describe(offered)}, before ${describe(known)})`;
    }
  }
  return undefined;
}

function listsOf({ crl }: PemMaterial): Crl[] {
  const blocks = crl.flatMap((text) => text.match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g) ?? []);
  return blocks.flatMap((pem) => attempt(() => parseCrl(fromPem('X509 CRL', pem))) ?? []);
}

function authoritiesOf({ cert, ca, bundles }: PemMaterial): X509Certificate[] {
  return [cert, ca, ...Object.values(bundles)]
    .flatMap(splitCertificates)
    .flatMap((pem) => attempt(() => new X509Certificate(pem)) ?? []);
}

function latestOf({ publicKey }: X509Certificate, lists: readonly Crl[]): Crl | undefined {
  return lists
    .filter((list) => verifyCrl(list, publicKey))
    .reduce<Crl | undefined>((latest, list) => (latest && isOlder(list, latest) ? latest : list), undefined);
}

/** By number and by date: both must grow from list to list (RFC 5280 sections 5.1.2.4 and 5.2.3). */
function isOlder(list: Crl, than: Crl): boolean {
  return numberOf(list) < numberOf(than) || list.thisUpdate < than.thisUpdate;
}

function numberOf({ number }: Crl): bigint {
  return BigInt(`0x${number ?? '0'}`);
}

function describe({ number, thisUpdate }: Crl): string {
  return `number ${BigInt(`0x${number ?? '0'}`)} of ${new Date(thisUpdate).toISOString()}`;
}

function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
