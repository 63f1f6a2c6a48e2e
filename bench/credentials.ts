import { readFile } from 'node:fs/promises';
import type { IdentityFiles } from '@sallyport/pki';

/** The PEM of a process, under the names that node:tls has for them. */
export async function readCredentials({ ca, cert, key }: IdentityFiles) {
  return { ca: await readFile(ca), cert: await readFile(cert), key: await readFile(key) };
}
