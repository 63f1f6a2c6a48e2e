import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { root } from '../repository.js';

/** What scripts/servers.mjs fetches, by the names under which it puts them on the PATH. */
export type ServerProgram =
  | 'consul-1.8.7'
  | 'etcd-3.4'
  | 'etcdctl-3.4'
  | 'etcd-3.5'
  | 'etcdctl-3.5'
  | 'redis-server'
  | 'nginx'
  | 'haproxy'
  | 'chromium-headless-shell';

/**
 * What the servers get of our environment: the PATH, with the fetched programs on it also where mocha was started by hand.
 * Both servers take options from variables, and none of those of the machine may change a test.
 */
export const serverEnvironment = {
  PATH: [process.env.PATH, join(root, '.cache', 'servers', 'bin')].join(delimiter),
  HOME: '/nonexistent',
};

/**
 * Skips the suite it is called in, by name, where a program is missing. With SALLYPORT_REQUIRE_SERVERS=1 the suite fails
 * instead, so that a machine that should have it cannot pass without.
 */
export function requireServers(...names: readonly ServerProgram[]): void {
  before(function () {
    const missing = names.filter((name) => !isThere(name));
    if (missing.length === 0) return;
    if (process.env.SALLYPORT_REQUIRE_SERVERS === '1') throw new Error(`missing: ${missing.join(', ')}`);
    this.skip();
  });
}

/** Where a program is, for whoever starts it by other means than its name. Throws when it is nowhere. */
export function programPath(name: ServerProgram): string {
  const found = serverEnvironment.PATH.split(delimiter)
    .map((folder) => join(folder, name))
    .find(existsSync);
  if (found === undefined) throw new Error(`${name} is not on this machine`);
  return found;
}

function isThere(name: ServerProgram): boolean {
  return spawnSync(name, [versionFlag(name)], { env: serverEnvironment, timeout: 10_000 }).status === 0;
}

function versionFlag(name: ServerProgram): string {
  if (name === 'nginx' || name === 'haproxy') return '-v';
  return /^(?:etcd-|redis-|chromium-)/.test(name) ? '--version' : 'version';
}
