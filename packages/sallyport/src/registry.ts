import { registry as builtIn } from '@sallyport/core';
import { consul } from '@sallyport/registry-consul';
import { etcd } from '@sallyport/registry-etcd';

/** Where services are published and found. */
export const registry: typeof builtIn & { readonly consul: typeof consul; readonly etcd: typeof etcd } = {
  ...builtIn,
  consul,
  etcd,
};
