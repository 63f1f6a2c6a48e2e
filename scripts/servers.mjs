/*
 * Programs of others that the tests talk to. What the machine lacks is taken from its own package archive (apt checks the
 * signatures) and unpacked below .cache/: nothing is installed, and no mirror is named here but those the machine uses.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { lockFolder } from './lock.mjs';
import { capture, root } from './process.mjs';

/**
 * `suite`: the release of Debian that carries this version; left out, what the machine's own sources have is right.
 * `libraries`: which of the packages' dependencies come along; the rest (libc) every system has.
 * `missing`: whatever this machine would have to install for it comes along.
 * `commands`: name on the PATH, its path in the packages, and the arguments and answer by which it is known to work.
 * `env`: variables that hold paths inside the packages.
 */
const programs = {
  openssl: {
    packages: ['openssl'],
    libraries: /^libssl/,
    commands: { openssl: { path: 'usr/bin/openssl', probe: ['version'], answer: /./ } },
    env: { OPENSSL_CONF: 'etc/ssl/openssl.cnf' },
  },
  'consul-1.8.7': {
    suite: 'bullseye',
    packages: ['consul'],
    commands: { 'consul-1.8.7': { path: 'usr/bin/consul', probe: ['version'], answer: /^Consul v?1\.8\.7/m } },
  },
  'etcd-3.4': etcd('3.4', 'bookworm'),
  'etcd-3.5': etcd('3.5', 'trixie'),
  'redis-server': {
    packages: ['redis-server', 'redis-tools'],
    libraries: /^lib(?:ssl|lzf|jemalloc|atomic)/,
    commands: {
      'redis-server': { path: 'usr/bin/redis-server', probe: ['--version'], answer: /^Redis server v=[67]\./m },
    },
  },
  chromium: {
    packages: ['chromium-headless-shell', 'fonts-dejavu-core'],
    missing: true,
    commands: {
      'chromium-headless-shell': {
        path: 'usr/lib/chromium/chromium-headless-shell',
        probe: ['--version'],
        answer: /\d+\.\d+/,
      },
    },
  },
  nginx: {
    packages: ['nginx'],
    libraries: /^lib(?:ssl|pcre2|crypt)/,
    commands: { nginx: { path: 'usr/sbin/nginx', probe: ['-v'], answer: /nginx\/1\./ } },
  },
  haproxy: {
    packages: ['haproxy'],
    libraries: /^lib(?:ssl|pcre2|crypt|lua|systemd|opentracing)/,
    // Libraries of its libraries.
    missing: true,
    commands: { haproxy: { path: 'usr/sbin/haproxy', probe: ['-v'], answer: /HAProxy version [23]\./i } },
  },
};

function etcd(version, suite) {
  const answer = new RegExp(`version: ${version}\\.`, 'i');
  return {
    suite,
    packages: ['etcd-server', 'etcd-client'],
    commands: {
      [`etcd-${version}`]: { path: 'usr/bin/etcd', probe: ['--version'], answer },
      [`etcdctl-${version}`]: { path: 'usr/bin/etcdctl', probe: ['version'], answer },
    },
  };
}

/** The keys of the archive, which every Debian has: they sign the suites that the machine does not use itself as well. */
const archiveKeyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

const folder = join(root, '.cache', 'servers');
const bin = join(folder, 'bin');

/** Finds or fetches all, or those of these names. Resolves with the environment for the tests (PATH) and the names that could not be had. */
export async function provideServers(names = Object.keys(programs)) {
  const env = { ...process.env, PATH: `${process.env.PATH}${delimiter}${bin}` };
  const missing = await Promise.all(
    names.map(async (name) => {
      const program = programs[name];
      if (await works(program, env)) return [];
      await fetchProgram(name, program, env);
      return (await works(program, env)) ? [] : [name];
    }),
  );
  return { env, missing: missing.flat() };
}

async function works({ commands }, env) {
  for (const [command, { probe, answer }] of Object.entries(commands)) {
    const { code, output } = await capture(command, probe, { env });
    if (code !== 0 || !answer.test(output)) return false;
  }
  return true;
}

async function fetchProgram(name, program, env) {
  const home = join(folder, name);
  const unlock = await lockFolder(`${home}.lock`);
  try {
    if (await works(program, env)) return; // another process has fetched it meanwhile
    for (const source of await sources(program)) {
      rmSync(home, { recursive: true, force: true });
      for (const part of ['lists/partial', 'cache/archives/partial', 'packages'])
        mkdirSync(join(home, part), { recursive: true });
      if (source) writeFileSync(join(home, 'sources.list'), source);
      const fetched = await download(home, program);
      if (fetched) writeWrappers(join(home, 'root'), program);
      for (const part of ['lists', 'cache', 'packages', 'sources.list'])
        rmSync(join(home, part), { recursive: true, force: true });
      if (fetched) return;
    }
  } finally {
    unlock();
  }
}

/** The lines of apt sources to try in turn: one for each site that the machine takes packages from. */
async function sources({ suite }) {
  if (!suite) return [undefined];
  const targets = await capture('apt-get', ['indextargets', '--format', '$(SITE)', 'Created-By: Packages']);
  if (targets.code !== 0) return [];
  const sites = [...new Set(targets.output.trim().split('\n'))].filter((site) => !site.endsWith('-security'));
  return sites.map((site) => `deb [signed-by=${archiveKeyring}] ${site} ${suite} main\n`);
}

/** False when the machine has no apt, no archive or no such package. */
async function download(home, { suite, packages, libraries, missing, commands }) {
  const apt = [
    ...['-o', `Dir::State::Lists=${join(home, 'lists')}`],
    ...['-o', `Dir::Cache=${join(home, 'cache')}`],
    ...['-o', 'APT::Sandbox::User=root'],
    ...['-o', 'Acquire::Languages=none'],
    ...['-o', 'Acquire::AllowInsecureRepositories=false', '-o', 'APT::Get::AllowUnauthenticated=false'],
    ...(suite ? ['-o', `Dir::Etc::SourceList=${join(home, 'sources.list')}`, '-o', 'Dir::Etc::SourceParts=-'] : []),
  ];
  if ((await capture('apt-get', [...apt, '-q', 'update'])).code !== 0) return false;
  const wanted = suite ? packages.map((name) => `${name}/${suite}`) : [...packages];
  if (libraries) {
    const depends = await capture('apt-cache', [...apt, 'depends', ...packages]);
    const names = [...depends.output.matchAll(/Depends: (\S+)/g)].map(([, name]) => name);
    wanted.push(...names.filter((name) => libraries.test(name)));
  }
  if (missing) {
    const install = await capture('apt-get', [...apt, '-qs', '--no-install-recommends', 'install', ...packages]);
    const names = [...install.output.matchAll(/^Inst (\S+)/gm)].map(([, name]) => name);
    wanted.push(...names.filter((name) => !packages.includes(name)));
  }
  const archives = join(home, 'packages');
  const got = await capture('apt-get', [...apt, '-q', 'download', ...wanted], { cwd: archives });
  if (got.code !== 0) return false;
  for (const file of readdirSync(archives)) {
    if ((await capture('dpkg', ['-x', join(archives, file), join(home, 'root')])).code !== 0) return false;
  }
  return Object.values(commands).every(({ path }) => existsSync(join(home, 'root', path)));
}

/** The libraries are for these programs alone: Node may be linked to others. */
function writeWrappers(programRoot, { commands, env = {} }) {
  mkdirSync(bin, { recursive: true });
  const libraries = readdirSync(programRoot, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.so(?:\.\d+)*$/.test(file))
    .map((file) => join(programRoot, dirname(file)));
  const variables = [
    ...(libraries.length > 0 ? [`LD_LIBRARY_PATH='${[...new Set(libraries)].join(':')}'`] : []),
    ...Object.entries(env).map(([name, file]) => `${name}='${join(programRoot, file)}'`),
  ];
  for (const [command, { path }] of Object.entries(commands)) {
    const wrapper = join(bin, command);
    writeFileSync(wrapper, `#!/bin/sh\n${[...variables, 'exec'].join(' ')} '${join(programRoot, path)}' "$@"\n`);
    chmodSync(wrapper, 0o755);
  }
}
