import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import type { AuthorityFileOptions } from './authority.js';
import { readCertificate } from './certificate-fields.js';
import { PkiError } from './errors.js';
import { ensureFolder, fileName, readPrivate, readPublic, writePrivate, writePublic } from './files.js';
import { privateKeyPem } from './keys.js';
import { splitCertificates } from './pem.js';

/** All that makes an authority. */
export interface AuthorityParts {
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
    refuseStranger(certificatePem, key);
    return { certificatePem, chainPem, bundlePem, key };
  } catch (cause) {
    throw new PkiError('file-malformed', `${files.certificate} and ${files.key} are not an authority and its key`, {
      cause,
    });
  }
}

function refuseStranger(certificatePem: string, key: KeyObject): void {
  const certificate = new X509Certificate(certificatePem);
  if (!certificate.ca) throw new Error('the certificate is not that of an authority');
  if (!certificate.checkPrivateKey(key)) throw new Error('the key belongs to another certificate');
  if (!readCertificate(certificatePem).uris[0]?.startsWith('spiffe://')) throw new Error('it names no trust domain');
}

function paths(directory: string, { name = 'authority' }: AuthorityFileOptions) {
  const stem = join(directory, fileName(name));
  return { certificate: `${stem}.pem`, key: `${stem}.key`, bundle: join(directory, 'bundle.pem') };
}
