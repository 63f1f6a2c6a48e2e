import { join } from 'node:path';
import type { Secret } from '@sallyport/core';
import { createCsrFor } from '../csr.js';
import { PkiError } from '../errors.js';
import { ensureFolder, fileName, writePrivate } from '../files.js';
import { generateKeys, type KeyAlgorithm } from '../keys.js';

export interface IssuerKeyOptions {
  /** Encrypts the key at rest. At least 20 characters, best of all 32 random bytes from a secret store. */
  readonly passphrase: Secret;
  /** Left out: `issuer`, for `issuer.key`. */
  readonly name?: string;
  /** Left out: P-256. */
  readonly algorithm?: KeyAlgorithm;
}

export interface IssuerKey {
  /** For the offline root: `root.certifyIntermediate(csrPem)`. */
  readonly csrPem: string;
  /** Path of the encrypted key, PKCS#8 in PEM, mode 0600. */
  readonly key: string;
}

const MIN_PASSPHRASE = 20;

/**
 * The key of an online authority, made where it will be used: only the request travels to the root, and only the certificate
 * comes back. Throws a `PkiError` with code `passphrase-weak`, and what reading the secret throws.
 */
export async function createIssuerKey(
  directory: string,
  { passphrase: secret, name = 'issuer', algorithm }: IssuerKeyOptions,
): Promise<IssuerKey> {
  const passphrase = await secret.read();
  // PKCS#8 by Node stretches a passphrase by 2,048 rounds only, so it must be strong by itself.
  if (passphrase.length < MIN_PASSPHRASE) {
    throw new PkiError('passphrase-weak', `${secret} has fewer than ${MIN_PASSPHRASE} characters`);
  }
  const keys = generateKeys(algorithm);
  const pem = keys.privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString();
  await ensureFolder(directory);
  const key = join(directory, `${fileName(name)}.key`);
  await writePrivate(key, pem);
  return { csrPem: createCsrFor(keys), key };
}
