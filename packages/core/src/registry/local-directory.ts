import type { Stats } from 'node:fs';
import { lstat, mkdir } from 'node:fs/promises';

/**
 * Why the folder cannot hold a registry, or undefined: it must be a folder of this user that nobody else can enter,
 * because whoever can write there says where services live.
 */
export async function directoryProblem(path: string): Promise<string | undefined> {
  const stats = await statsOf(path);
  return stats && problemOf(stats);
}

/** Creates the folder (0700) when it is missing and gives its inode; throws when `directoryProblem` finds one. */
export async function openDirectory(path: string): Promise<number> {
  let stats = await statsOf(path);
  if (stats === undefined) {
    await mkdir(path, { recursive: true, mode: 0o700 });
    stats = await lstat(path);
  }
  const problem = problemOf(stats);
  if (problem !== undefined) throw new Error(`the registry folder cannot be used: ${problem}`);
  return stats.ino;
}

/** True when a file or folder belongs to the user of this process and nobody else may touch it. */
export function isPrivate({ uid, mode }: Pick<Stats, 'uid' | 'mode'>): boolean {
  // Windows has neither; there the folder inherits the access list of the user's profile.
  return process.getuid === undefined || (uid === process.getuid() && (mode & 0o077) === 0);
}

function problemOf(stats: Stats): string | undefined {
  if (stats.isSymbolicLink()) return 'it is a symbolic link, which may be turned to another folder';
  if (!stats.isDirectory()) return 'it is not a folder';
  if (isPrivate(stats)) return undefined;
  return stats.uid === process.getuid?.()
    ? `its mode is ${(stats.mode & 0o777).toString(8)}, so others can enter it`
    : 'it belongs to another user';
}

async function statsOf(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

export function isNotFound(error: unknown): boolean {
  return errorCode(error) === 'ENOENT';
}

/** `EACCES` and the like; undefined for errors that are not of the system. */
export function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code;
}
