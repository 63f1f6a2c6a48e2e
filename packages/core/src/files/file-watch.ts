import { createHash } from 'node:crypto';
import { type BigIntStats, type FSWatcher, watch } from 'node:fs';
import { readFile, realpath, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type Clock, every, type Timer } from '../clock.js';
import { MAX_FILE_BYTES } from './file-safety.js';

/** Writers seldom write once: a change is looked at when the dust has settled. */
const DEBOUNCE_MS = 50;

/** The soon() of every watch that is open. */
const watches = new Set<() => void>();

/** Every watch of the process looks at its files now, as after a change that the system did not report: what SIGHUP asks for. */
export function lookAtFiles(): void {
  for (const look of watches) look();
}

export interface FileWatchOptions {
  readonly clock: Clock;
  /** How often to look even if the system reports nothing: network file systems and some containers never do. */
  readonly pollMs: number;
  /** Called after one or more of the files have changed, appeared or disappeared. Must not throw. */
  readonly onChange: () => void;
}

export interface FileWatch {
  /** Releases watchers and timers; twice is harmless. No call of `onChange` follows. */
  close(): void;
}

/**
 * Watches *and* polls a set of files, from the state they have when the promise resolves. Their folders are watched rather
 * than the files, so that a file or folder that is replaced, deleted or reached by another symbolic link (as Kubernetes
 * swaps mounted secrets) is noticed. Never keeps the process alive.
 */
export async function watchFiles(paths: readonly string[], options: FileWatchOptions): Promise<FileWatch> {
  const files = paths.map((path) => resolve(path));
  const folders = new Map<string, WatchedFolder>();
  let known = '';
  let looking = false;
  let closed = false;
  let pending: Timer | undefined;

  function soon() {
    if (closed || pending) return;
    pending = options.clock.after(DEBOUNCE_MS, () => {
      pending = undefined;
      void look();
    });
  }

  async function look() {
    // A look under way may have read a file before it changed: look again after it.
    if (looking) return soon();
    looking = true;
    try {
      await watchFolders();
      const now = await fingerprints(files);
      if (closed || now === known) return;
      known = now;
      options.onChange();
    } finally {
      looking = false;
    }
  }

  async function watchFolders() {
    const wanted = await foldersOf(files);
    if (closed) return;
    for (const [path, folder] of folders) {
      if (wanted.get(path) === folder.inode) continue;
      folder.watcher.close();
      folders.delete(path);
    }
    for (const [path, inode] of wanted) {
      const watcher = folders.has(path) ? undefined : watchFolder(path, soon);
      if (watcher) folders.set(path, { watcher, inode });
    }
  }

  // Watch first: whatever changes after the fingerprints were taken is reported.
  await watchFolders();
  known = await fingerprints(files);
  const poll = every(options.clock, options.pollMs, () => void look());
  watches.add(soon);
  return {
    close() {
      closed = true;
      watches.delete(soon);
      poll.cancel();
      pending?.cancel();
      for (const { watcher } of folders.values()) watcher.close();
      folders.clear();
    },
  };
}

interface WatchedFolder {
  readonly watcher: FSWatcher;
  /** A folder that was deleted and made again has another one; its old watcher is deaf. */
  readonly inode: string;
}

/** Undefined where the system cannot watch, e.g. because its watches are used up: polling goes on. */
function watchFolder(path: string, onEvent: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(path, { persistent: false }, onEvent);
    watcher.on('error', () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}

/** The existing folders that hold the files and what the files link to, with their inodes. */
async function foldersOf(files: readonly string[]): Promise<Map<string, string>> {
  const folders = new Map<string, string>();
  for (const file of files) {
    const target = await realpath(file).catch(() => file);
    for (const folder of new Set([dirname(file), dirname(target)])) {
      const found = await stat(folder, { bigint: true }).catch(() => undefined);
      if (found) folders.set(folder, `${found.dev}:${found.ino}`);
    }
  }
  return folders;
}

/** Differs whenever content, mode or place of one of the files differs. */
async function fingerprints(files: readonly string[]): Promise<string> {
  const parts = await Promise.all(files.map(fingerprint));
  return parts.join('\n');
}

async function fingerprint(file: string): Promise<string> {
  try {
    const found = await stat(file, { bigint: true });
    // Time stamps are coarse on some file systems; the content is not.
    const readable = found.isFile() && found.size <= MAX_FILE_BYTES;
    const digest = readable
      ? createHash('sha256')
          .update(await readFile(file))
          .digest('base64')
      : '';
    return `${stampOf(found)}:${digest}`;
  } catch {
    return 'missing';
  }
}

/**
 * Which files these are now. The same before and after they were read: what was read stood there together, and is no mixture
 * of what was there before a swap and after it.
 */
export async function fileStamps(files: readonly string[]): Promise<string> {
  const stamps = await Promise.all(files.map((file) => stat(file, { bigint: true }).then(stampOf, () => 'missing')));
  return stamps.join('\n');
}

function stampOf({ dev, ino, mode, uid, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, mode, uid, size, mtimeNs, ctimeNs].join(':');
}
