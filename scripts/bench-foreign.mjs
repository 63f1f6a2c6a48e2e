/*
 * Installs the packages of others that the benchmarks compare with, into bench/foreign/node_modules. They are no part of
 * `npm ci`: nobody who builds or uses Sallyport needs them. Says nothing when there is nothing to do.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { lockFolder } from './lock.mjs';
import { capture, npmOptions, root, runAsProgram, ScriptError } from './process.mjs';

const folder = join(root, 'bench', 'foreign');

async function provideForeign() {
  const unlock = await lockFolder(join(root, '.cache', 'bench-foreign.lock'));
  try {
    if (!isInstalled()) await install();
  } finally {
    unlock();
  }
}

/** npm writes down what it installed as its last step. */
function isInstalled() {
  const record = join(folder, 'node_modules', '.package-lock.json');
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const locked = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(locked).every(
    ([path, { version, optional }]) => path === '' || optional || installed[path]?.version === version,
  );
}

/** Some of them want a newer Node than the one that runs npm: what matters is the one that runs them. */
async function install() {
  console.error('Installing what the benchmark compares with …');
  const args = ['ci', '--engine-strict=false', '--no-audit', '--no-fund', '--loglevel=error', '--fetch-retries=1'];
  const { code, output } = await capture('npm', args, { ...npmOptions, cwd: folder });
  if (code !== 0) throw new ScriptError(`npm ci failed in bench/foreign:\n${output}`);
}

await runAsProgram(import.meta.url, provideForeign);
