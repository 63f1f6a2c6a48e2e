import { randomBytes } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';
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
  if (mine.has(path)) throw busy('this process has the store open already');
  mine.add(path);
  try {
    await take(path);
  } catch (error) {
    mine.delete(path);
    throw error;
  }
  return async () => {
    mine.delete(path);
    await rm(path, { force: true });
  };
}

async function take(path: string): Promise<void> {
  // Written before it has its name: nobody reads half a lock.
  const draft = `${path}.${randomBytes(8).toString('hex')}`;
  try {
    await writeFile(draft, `${hostname()} ${process.pid}\n`, { flag: 'wx', mode: 0o600 });
    if (!(await isNamed(draft, path))) await takeOver(draft, path);
  } catch (cause) {
    throw cause instanceof PkiError ? cause : busy(`the lock ${path} cannot be taken`, cause);
  } finally {
    await rm(draft, { force: true });
  }
}

/** One at a time: whoever finds the same dead lock a moment later would remove the one that was put in its place. */
async function takeOver(draft: string, path: string): Promise<void> {
  await refuseLiving(path);
  const turn = `${path}.takeover`;
  if (!(await isNamed(draft, turn))) {
    throw busy(`another process is taking over what a dead one left; remove ${turn} if it is gone`);
  }
  try {
    await refuseLiving(path);
    await rm(path, { force: true });
    if (!(await isNamed(draft, path))) throw busy('another process was faster to open the store');
  } finally {
    await rm(turn, { force: true });
  }
}

/** Gives a file a second name, unless something has that name already. */
async function isNamed(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function refuseLiving(path: string): Promise<void> {
  const holder = await readFile(path, 'utf8').catch(() => undefined);
  const [host = '', pid = ''] = holder?.trim().split(' ') ?? [];
  if (holder === undefined || isStale(host, Number(pid))) return;
  throw busy(`process ${pid} on ${host} has the store open; stop it, or remove ${path} if it is gone`);
}

/** Its own number means that another life of this process had it: in a container every life has number 1. */
function isStale(host: string, pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return true; // no lock of ours
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

function busy(problem: string, cause?: unknown): PkiError {
  return new PkiError('store-busy', problem, { cause });
}
