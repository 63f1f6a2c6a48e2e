import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ScriptError } from './process.mjs';

const patienceMs = 10 * 60_000;

/** Waits until no other process holds the folder, takes it and returns the function that gives it back. */
export async function lockFolder(path) {
  mkdirSync(dirname(path), { recursive: true });
  const giveUpAt = Date.now() + patienceMs;
  while (!take(path)) {
    if (isStale(path)) discard(path);
    else if (Date.now() > giveUpAt) throw new ScriptError(`Another process holds ${path} since ten minutes.`);
    else await sleep(100);
  }
  return () => rmSync(path, { recursive: true, force: true });
}

function take(path) {
  try {
    mkdirSync(path);
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
  writeFileSync(join(path, 'pid'), String(process.pid));
  return true;
}

/** Its owner died without giving it back. A folder without a pid is one that is just being taken, unless it is old. */
function isStale(path) {
  try {
    process.kill(Number(readFileSync(join(path, 'pid'), 'utf8')) || Number.NaN, 0);
    return false;
  } catch (error) {
    if (error.code === 'EPERM') return false;
    if (error.code === 'ESRCH') return true;
    return Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) > 5_000;
  }
}

/** Renames first: of two processes that find it stale only one succeeds, and neither removes the lock of a third. */
function discard(path) {
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (error.code === 'ENOENT') return;
    throw error;
  }
  rmSync(aside, { recursive: true, force: true });
}
