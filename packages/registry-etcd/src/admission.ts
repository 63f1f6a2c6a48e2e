import { CallError } from '@sallyport/core';
import { type Violation, violation } from '@sallyport/core/spi';
import { type Permission, range, roleGet, userGet } from './api/messages.js';
import type { Cluster } from './cluster.js';
import { hasCode } from './errors.js';
import { type Keys, prefixRange } from './keys.js';

const ZERO = Buffer.of(0);

export interface Credential {
  /** What etcd knows it by, for messages: `user web`. */
  readonly name: string;
  /** In what it is not the credential of one service alone. */
  readonly violations: readonly Violation[];
}

/**
 * Looks at what the credential may do before anything is done with it: as little as a service needs, and not less. Rejects
 * with CallError: PERMISSION_DENIED when it may not even read the service's own instances.
 */
export async function examineCredential(cluster: Cluster, keys: Keys, service: string): Promise<Credential> {
  const { user } = cluster;
  if (user === undefined) {
    return anonymous('nobody', 'the certificate has no common name, and there is no auth: etcd would know no user');
  }
  const name = `user ${user}`;
  const roles = user === 'root' ? [] : await rolesOf(user, cluster);
  if (roles === undefined) {
    return anonymous(name, 'authentication is not enabled in etcd: whoever reaches it may do everything');
  }
  const excess = await excessOf(user, roles, cluster, keys, service);
  if (excess !== undefined) {
    return { name, violations: [violation('registry-credential-too-powerful', 'registry.etcd.auth', excess)] };
  }
  await requireOwnInstances(cluster, keys, service);
  return { name, violations: [] };
}

function anonymous(name: string, problem: string): Credential {
  const fix = 'enable authentication in etcd and give a user, or a certificate with its name as common name';
  return { name, violations: [violation('registry-anonymous', 'registry.etcd.auth', problem, fix)] };
}

/** Undefined when etcd does not ask who we are. */
async function rolesOf(user: string, cluster: Cluster): Promise<readonly string[] | undefined> {
  if (!(await mayAdminister(cluster))) return await cluster.ask(userGet, user);
  try {
    const roles = await cluster.ask(userGet, user);
    return roles.includes('root') ? roles : undefined;
  } catch (error) {
    if (hasCode(error, 'UNAUTHENTICATED') || hasCode(error, 'FAILED_PRECONDITION')) return undefined;
    throw error;
  }
}

/** Whether etcd lets us look at a role that is not ours and cannot be: it does so for root, and for everybody without auth. */
async function mayAdminister(cluster: Cluster): Promise<boolean> {
  try {
    await cluster.ask(roleGet, 'sallyport\nprobe');
    return true;
  } catch (error) {
    if (hasCode(error, 'FAILED_PRECONDITION')) return true;
    if (hasCode(error, 'PERMISSION_DENIED')) return false;
    throw error;
  }
}

async function excessOf(
  user: string,
  roles: readonly string[],
  cluster: Cluster,
  keys: Keys,
  service: string,
): Promise<string | undefined> {
  if (user === 'root') return 'the user root may do everything in etcd';
  if (roles.includes('root')) return `the user ${user} has the role root: it may do everything in etcd`;
  for (const role of roles) {
    for (const permission of await cluster.ask(roleGet, role)) {
      if (permission.write && !lies(permission, keys.ofService(service))) {
        return `the user ${user} may write beyond the instances of ${service}, by the role ${role}`;
      }
      if (permission.read && !lies(permission, keys.services)) {
        return `the user ${user} may read beyond the keys of the registry, by the role ${role}`;
      }
    }
  }
  return undefined;
}

async function requireOwnInstances(cluster: Cluster, keys: Keys, service: string): Promise<void> {
  const prefix = keys.ofService(service);
  try {
    await cluster.ask(range, { ...prefixRange(prefix), limit: 1, keysOnly: true });
  } catch (error) {
    if (!hasCode(error, 'PERMISSION_DENIED')) throw error;
    throw new CallError('PERMISSION_DENIED', `the etcd user ${cluster.user} may not read ${prefix}`);
  }
}

function lies({ key, end }: Permission, prefix: string): boolean {
  const outer = prefixRange(prefix);
  const open = end.equals(ZERO);
  return key.compare(outer.key) >= 0 && key.compare(outer.end) < 0 && !open && end.compare(outer.end) <= 0;
}
