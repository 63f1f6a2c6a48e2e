import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readSafeFile } from '@sallyport/core/spi';
import { PkiError } from './errors.js';

const PRIVATE_MODE = 0o600;
const PUBLIC_MODE = 0o644;
const FOLDER_MODE = 0o700;

/** Makes the folder, and those above it, for its owner alone. One that exists is left as it is. */
export async function ensureFolder(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: FOLDER_MODE });
}

export async function writePrivate(path: string, content: string): Promise<void> {
  await writeWhole(path, content, PRIVATE_MODE);
}

export async function writePublic(path: string, content: string): Promise<void> {
  await writeWhole(path, content, PUBLIC_MODE);
}

/** Throws a `PkiError`: `file-unreadable`, or `file-exposed` if others could have read or replaced it. */
export async function readPrivate(path: string): Promise<string> {
  return readChecked(path, { private: true });
}

/** Throws a `PkiError`: `file-unreadable`, or `file-exposed` if others could have replaced it. */
export async function readPublic(path: string): Promise<string> {
  return readChecked(path, { private: false });
}

/** A name that stays in its folder and is not taken: `web` for `web.pem` and `web.key`. */
export function fileName(name: string): string {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/.test(name) || name === 'bundle') {
    throw new PkiError('file-name', `${JSON.stringify(name)} cannot name a file here; use letters, digits, . _ -`);
  }
  return name;
}

/** Readers see the old content or the new, never a part; the key is never readable by others, not even for a moment. */
async function writeWhole(path: string, content: string, mode: number): Promise<void> {
  const temporary = join(dirname(path), `.${randomBytes(8).toString('hex')}.tmp`);
  try {
    const file = await open(temporary, 'wx', PRIVATE_MODE);
    try {
      await file.chmod(mode);
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function readChecked(path: string, expected: { readonly private: boolean }): Promise<string> {
  const { text, findings } = await readSafeFile(path, expected);
  if (text !== undefined) return text;
  const unreadable = findings.every(({ danger }) => danger === 'unreadable');
  const problems = findings.map(({ problem }) => problem).join('; ');
  throw new PkiError(unreadable ? 'file-unreadable' : 'file-exposed', problems);
}
