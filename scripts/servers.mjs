/*
 * Programs of others that the tests talk to. What the machine lacks is taken from its own package archive (apt checks the
 * signatures) and unpacked below .cache/: nothing is installed, and no mirror is named here but those the machine uses.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { lockFolder } from './lock.mjs';
import { capture, root } from './process.mjs';

/**
 * `libraries`: which of the package's dependencies come along; the rest (libc) every system has. `env`: variables that hold
 * paths inside the package.
 */
const programs = {
  openssl: {
    probe: ['version'],
    package: 'openssl',
    libraries: /^libssl/,
    path: 'usr/bin/openssl',
    env: { OPENSSL_CONF: 'etc/ssl/openssl.cnf' },
  },
};

const folder = join(root, '.cache', 'servers');

/** Finds or fetches all. Resolves with the environment for the tests (PATH) and the names that could not be had. */
export async function provideServers() {
  const bin = join(folder, 'bin');
  const env = { ...process.env, PATH: `${process.env.PATH}${delimiter}${bin}` };
  const missing = [];
  for (const [name, program] of Object.entries(programs)) {
    if (await works(name, program, env)) continue;
    await fetchProgram(name, program, bin);
    if (!(await works(name, program, env))) missing.push(name);
  }
  return { env, missing };
}

async function works(name, { probe }, env) {
  return (await capture(name, probe, { env })).code === 0;
}

async function fetchProgram(name, program, bin) {
  const home = join(folder, name);
  const unlock = await lockFolder(`${home}.lock`);
  try {
    rmSync(home, { recursive: true, force: true });
    for (const part of ['lists/partial', 'cache/archives/partial', 'packages'])
      mkdirSync(join(home, part), { recursive: true });
    if (await download(home, program)) writeWrapper(join(bin, name), join(home, 'root'), program);
    for (const part of ['lists', 'cache', 'packages']) rmSync(join(home, part), { recursive: true, force: true });
  } finally {
    unlock();
  }
}

/** False when the machine has no apt, no archive or no such package. */
async function download(home, program) {
  const apt = [
    ...['-o', `Dir::State::Lists=${join(home, 'lists')}`],
    ...['-o', `Dir::Cache=${join(home, 'cache')}`],
    ...['-o', 'APT::Sandbox::User=root'],
  ];
  const packages = join(home, 'packages');
  if ((await capture('apt-get', [...apt, '-q', 'update'])).code !== 0) return false;
  const depends = await capture('apt-cache', [...apt, 'depends', program.package]);
  const libraries = [...depends.output.matchAll(/Depends: (\S+)/g)]
    .map(([, name]) => name)
    .filter((name) => program.libraries.test(name));
  const got = await capture('apt-get', [...apt, '-q', 'download', program.package, ...libraries], { cwd: packages });
  if (got.code !== 0) return false;
  for (const file of readdirSync(packages)) {
    if ((await capture('dpkg', ['-x', join(packages, file), join(home, 'root')])).code !== 0) return false;
  }
  return existsSync(join(home, 'root', program.path));
}

/** The libraries are for this program alone: Node may be linked to others. */
function writeWrapper(wrapper, programRoot, { path, env }) {
  mkdirSync(dirname(wrapper), { recursive: true });
  const libraries = readdirSync(programRoot, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.so\.\d+$/.test(file))
    .map((file) => join(programRoot, dirname(file)));
  const variables = [
    `LD_LIBRARY_PATH='${[...new Set(libraries)].join(':')}'`,
    ...Object.entries(env).map(([name, file]) => `${name}='${join(programRoot, file)}'`),
  ];
  writeFileSync(wrapper, `#!/bin/sh\n${variables.join(' ')} exec '${join(programRoot, path)}' "$@"\n`);
  chmodSync(wrapper, 0o755);
}
