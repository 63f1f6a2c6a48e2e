import { open, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { PkiError } from '../errors.js';

/** Folders that are open in this process. */
const mine = new Set<string>();

/**
 * Keeps a second authority away from the folder, because two would each spend the same join token. Returns the release. What a
 * process that died on this machine left behind is taken over; after a crash elsewhere (another host name) somebody has to
 * remove the file. Throws a `PkiError` with code `store-busy`.
 */
export async function lockStore(path: string): Promise<() => Promise<void>> {
  if (mine.has(path)) throw new PkiError('store-busy', 'this process has the store open already');
  mine.add(path);
  try {
    await takeOver(path);
  } catch (error) {
    mine.delete(path);
    throw error;
  }
  return async () => {
    mine.delete(path);
    await rm(path, { force: true });
  };
}

async function takeOver(path: string): Promise<void> {
  const holder = await readFile(path, 'utf8').catch(() => undefined);
  if (holder !== undefined) {
    const [host = '', pid = ''] = holder.trim().split(' ');
    if (!isStale(host, Number(pid))) {
      const problem = `process ${pid} on ${host} has the store open; stop it, or remove ${path} if it is gone`;
      throw new PkiError('store-busy', problem);
    }
    await rm(path, { force: true });
  }
  try {
    const file = await open(path, 'wx', 0o600);
    await file.writeFile(`${hostname()} ${process.pid}\n`);
    await file.close();
  } catch (cause) {
    throw new PkiError('store-busy', `the lock ${path} cannot be taken`, { cause });
  }
}

/** Its own number means that another life of this process had it: in a container every life has number 1. */
function isStale(host: string, pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return true; // cut off by a crash
  return host === hostname() && (pid === process.pid || !isAlive(pid));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
