import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
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

/** Throws a `PkiError` with code `file-exposed` if anybody but its owner, who must be us, may read or write it. */
export async function readPrivate(path: string): Promise<string> {
  return readChecked(path, 0o077);
}

/** Throws a `PkiError` with code `file-exposed` if anybody but its owner, who must be us, may write it. */
export async function readPublic(path: string): Promise<string> {
  return readChecked(path, 0o022);
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

/** Looks at the open file and not at its name, so that nobody can swap it between the check and the reading. */
async function readChecked(path: string, forbiddenBits: number): Promise<string> {
  const file = await open(path, 'r');
  try {
    const { mode, uid } = await file.stat();
    if (process.getuid !== undefined && ((mode & forbiddenBits) !== 0 || uid !== process.getuid())) {
      const found = (mode & 0o777).toString(8).padStart(4, '0');
      throw new PkiError('file-exposed', `${path} has mode ${found} or another owner; run: chmod go-rwx ${path}`);
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}
