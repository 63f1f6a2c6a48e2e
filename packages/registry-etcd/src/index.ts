export { etcd } from './etcd.js';
export type { EtcdRegistryOptions, EtcdRetry, EtcdTimeouts } from './options.js';
export { type EtcdRole, type EtcdRoleOptions, type EtcdRolePermission, etcdRole } from './role.js';
