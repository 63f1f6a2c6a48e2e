import { isServiceName } from '@sallyport/core/spi';
import { Keys } from './keys.js';

export interface EtcdRoleOptions {
  /** Names of the services that this one calls. Left out: none. */
  readonly reads?: readonly string[];
  /** As in the options of the registry. Default `sallyport`. */
  readonly root?: string;
}

export interface EtcdRolePermission {
  readonly access: 'read' | 'readwrite';
  /** Of all keys that the permission covers. */
  readonly prefix: string;
}

/** What one service may do in etcd, and nothing else. */
export interface EtcdRole {
  readonly name: string;
  readonly permissions: readonly EtcdRolePermission[];
  /** Commands for an administrator: they make the role, and the user of the same name with it. */
  readonly commands: readonly string[];
}

/**
 * The least privilege of a service: it writes its own instances and reads those of the services it calls. Throws TypeError
 * for what is no service name, and RangeError for a root that cannot be one.
 */
export function etcdRole(service: string, { reads = [], root = 'sallyport' }: EtcdRoleOptions = {}): EtcdRole {
  for (const name of [service, ...reads]) {
    if (!isServiceName(name)) throw new TypeError(`${JSON.stringify(name)} is not the name of a service`);
  }
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(root)) throw new RangeError('the root is not one segment of a key');
  const keys = new Keys(root);
  const name = `${root}-${service}`;
  const called = [...new Set(reads)].filter((read) => read !== service).sort();
  const permissions: readonly EtcdRolePermission[] = [
    { access: 'readwrite', prefix: keys.ofService(service) },
    ...called.map((read) => ({ access: 'read', prefix: keys.ofService(read) }) as const),
  ];
  return {
    name,
    permissions,
    commands: [
      `etcdctl role add ${name}`,
      ...permissions.map(({ access, prefix }) => `etcdctl role grant-permission ${name} ${access} --prefix ${prefix}`),
      `etcdctl user add ${service} --no-password`,
      `etcdctl user grant-role ${service} ${name}`,
    ],
  };
}
