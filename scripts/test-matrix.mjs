/*
 * npm run test:matrix [-- versions]    runs the tests on each Node (20.19, 22, 24 and 26 if none is named)
 * npm run test:matrix -- --print 24    fetches that Node and prints where it is
 *
 * The binaries come from the npm registry as packages, one a platform; npm checks their integrity.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { lockFolder } from './lock.mjs';
import { capture, npmOptions, root, runAsProgram, ScriptError } from './process.mjs';
import { setup } from './setup.mjs';
import { runTests } from './test.mjs';

const defaultVersions = ['20.19', '22', '24', '26'];

async function main(args) {
  if (args[0] === '--print') {
    console.log(await provideNode(args[1] ?? '24'));
    return 0;
  }
  await setup();
  const rows = [];
  for (const version of args.length > 0 ? args : defaultVersions) rows.push(await testOn(version));
  console.table(Object.fromEntries(rows.map(({ version, code, ...counts }) => [version, { ...counts, exit: code }])));
  return rows.every(({ code }) => code === 0) ? 0 : 1;
}

async function testOn(version) {
  const node = await provideNode(version);
  const { output } = await capture(node, ['--version']);
  console.log(`\n== Node ${output.trim()}`);
  const { code, results } = await runTests({ node, name: `test-node-${version}` });
  return { version: output.trim(), passed: results?.passed, failed: results?.failed, skipped: results?.skipped, code };
}

/** Resolves with the path of that Node below .cache/node/, fetched once. */
async function provideNode(version) {
  if (!/^\d+(\.\d+){0,2}$/.test(version)) throw new ScriptError(`Not a version of Node: ${version}`);
  const home = join(root, '.cache', 'node', version);
  const node = join(home, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
  const unlock = await lockFolder(`${home}.lock`);
  try {
    if (!existsSync(node)) await fetchNode(version, home);
  } finally {
    unlock();
  }
  return node;
}

async function fetchNode(version, home) {
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  const name = `node-${platform}-${process.arch}`;
  const parts = `${home}.part`;
  rmSync(parts, { recursive: true, force: true });
  mkdirSync(join(parts, 'unpacked'), { recursive: true });
  const packed = await capture(
    'npm',
    ['pack', `${name}@${version}`, '--pack-destination', parts, '--silent'],
    npmOptions,
  );
  const tarball = readdirSync(parts).find((file) => file.endsWith('.tgz'));
  if (packed.code !== 0 || !tarball) throw new ScriptError(`npm has no ${name}@${version}:\n${packed.output}`);
  const unpack = ['-xzf', join(parts, tarball), '--strip-components=1', '-C', join(parts, 'unpacked')];
  const unpacked = await capture('tar', unpack);
  if (unpacked.code !== 0) throw new ScriptError(`Cannot unpack ${tarball}:\n${unpacked.output}`);
  rmSync(home, { recursive: true, force: true });
  renameSync(join(parts, 'unpacked'), home);
  rmSync(parts, { recursive: true, force: true });
}

await runAsProgram(import.meta.url, main);
