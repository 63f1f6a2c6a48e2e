/*
 * Makes a fresh clone ready: installs the dependencies and compiles. Says nothing and costs little when there is nothing
 * to do, so every script begins with it. Needs Node, npm and git alone.
 */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { lockFolder } from './lock.mjs';
import { npmOptions, root, run, runAsProgram, ScriptError } from './process.mjs';

export async function setup() {
  requireNode(20, 19);
  const unlock = await lockFolder(join(root, '.cache', 'setup.lock'));
  try {
    if (!isInstalled()) await install();
    for (const project of projects()) removeOrphans(project);
    await compile();
  } finally {
    unlock();
  }
}

function requireNode(major, minor) {
  const [ownMajor, ownMinor] = process.versions.node.split('.').map(Number);
  if (ownMajor > major || (ownMajor === major && ownMinor >= minor)) return;
  throw new ScriptError(`Sallyport needs Node ${major}.${minor} or newer; this is ${process.version}.`);
}

/** npm writes down what it installed as its last step; compared with the lock it shows a missing, old or torn install. */
function isInstalled() {
  const record = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const locked = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(locked).every(
    ([path, { version, optional }]) =>
      !path.includes('node_modules/') || optional || (path in installed && installed[path].version === version),
  );
}

async function install() {
  console.log('Installing dependencies …');
  // Whoever sets NODE_ENV=production still needs the compiler.
  const code = await run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'], npmOptions);
  if (code !== 0) throw new ScriptError('npm ci failed, see above. Is the npm registry reachable?');
}

function projects() {
  const { references } = JSON.parse(readFileSync(join(root, 'tsconfig.json'), 'utf8'));
  return references.map(({ path }) => join(root, path));
}

/** Removes the output of sources that are gone: else a deleted test would still run and a deleted module be packed. */
function removeOrphans(project) {
  const sources = existsSync(join(project, 'src')) ? join(project, 'src') : project;
  const output = join(project, 'dist');
  if (!existsSync(output)) return;
  for (const file of readdirSync(output, { recursive: true, encoding: 'utf8' })) {
    const source = file.replace(/(\.d\.ts|\.js|\.js\.map)$/, '.ts');
    if (source !== file && !existsSync(join(sources, source))) rmSync(join(output, file));
  }
}

async function compile() {
  const code = await run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-b']);
  if (code !== 0) throw new ScriptError('The compiler found errors, see above.');
}

await runAsProgram(import.meta.url, setup);
