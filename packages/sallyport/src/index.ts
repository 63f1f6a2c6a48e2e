export * from '@sallyport/core';
export type {
  FromAuthorityOptions,
  FromVaultOptions,
  FromWorkloadApiOptions,
  VaultAuth,
  VaultConnectionOptions,
  VaultStoreOptions,
} from '@sallyport/pki';
export { type ConsulPolicyOptions, type ConsulRegistryOptions, consulPolicy } from '@sallyport/registry-consul';
export {
  type EtcdRegistryOptions,
  type EtcdRole,
  type EtcdRoleOptions,
  type EtcdRolePermission,
  etcdRole,
} from '@sallyport/registry-etcd';
export { type ClientOptions, client, type ServerLimits, type ServerOptions, server } from '@sallyport/transport-mtls';
// Takes precedence over the one of core: with the transport that nearly everybody wants.
export { createService, type SallyportServiceOptions } from './create-service.js';
// Takes precedence over the one of core: with the registries that need a server.
export { registry } from './registry.js';
// Takes precedence over the one of core: with the store of Vault.
export { secret } from './secret.js';
// Takes precedence over the one of core: with the sources that ask an authority.
export { tls } from './tls.js';
