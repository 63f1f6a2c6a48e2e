import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { checkSigner } from '@sallyport/core/spi';
import type { AuthorityFileOptions } from './authority.js';
import { PkiError } from './errors.js';
import { ensureFolder, fileName, readPrivate, readPublic, writePrivate, writePublic } from './files.js';
import { privateKeyPem } from './keys.js';
import { splitCertificates } from './pem.js';

/** All that makes an authority. */
export interface AuthorityParts {
  readonly trustDomain: string;
  readonly certificatePem: string;
  /** What leaves need beside themselves: this certificate and those above it, without the root. Empty for a root. */
  readonly chainPem: string;
  readonly bundlePem: string;
  readonly key: KeyObject;
}

export async function writeAuthority(
  { certificatePem, chainPem, bundlePem, key }: AuthorityParts,
  directory: string,
  options: AuthorityFileOptions,
): Promise<void> {
  const files = paths(directory, options);
  await ensureFolder(directory);
  await writePublic(files.bundle, bundlePem);
  await writePrivate(files.key, privateKeyPem(key));
  await writePublic(files.certificate, chainPem === '' ? certificatePem : chainPem);
}

export async function readAuthority(directory: string, options: AuthorityFileOptions): Promise<AuthorityParts> {
  const files = paths(directory, options);
  const keyPem = await readPrivate(files.key);
  const certificates = splitCertificates(await readPublic(files.certificate));
  const bundlePem = await readPublic(files.bundle);
  const roots = splitCertificates(bundlePem);
  const chainPem = certificates.filter((certificate) => !roots.includes(certificate)).join('');
  try {
    const [certificatePem] = certificates;
    if (certificatePem === undefined || roots.length === 0) throw new Error('a certificate is missing');
    const key = createPrivateKey(keyPem);
    return { trustDomain: trustDomainOf(certificatePem, key), certificatePem, chainPem, bundlePem, key };
  } catch (cause) {
    throw new PkiError('file-malformed', `${files.certificate} and ${files.key} are not an authority and its key`, {
      cause,
    });
  }
}

/** Throws unless the certificate is that of a SPIFFE authority and the key belongs to it. */
function trustDomainOf(certificatePem: string, key: KeyObject): string {
  const certificate = new X509Certificate(certificatePem);
  const verdict = checkSigner(certificate.raw);
  if (!verdict.ok) throw new Error(verdict.reason);
  if (verdict.trustDomain === undefined) throw new Error('the certificate names no trust domain');
  if (!certificate.checkPrivateKey(key)) throw new Error('the key belongs to another certificate');
  return verdict.trustDomain;
}

function paths(directory: string, { name = 'authority' }: AuthorityFileOptions) {
  const stem = join(directory, fileName(name));
  return { certificate: `${stem}.pem`, key: `${stem}.key`, bundle: join(directory, 'bundle.pem') };
}
