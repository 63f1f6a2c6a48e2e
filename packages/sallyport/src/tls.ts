import { tls as builtIn } from '@sallyport/core';
import { fromAuthority, fromVault, fromWorkloadApi } from '@sallyport/pki';

/** Where a workload's identity comes from. */
export const tls: typeof builtIn & {
  readonly fromAuthority: typeof fromAuthority;
  readonly fromVault: typeof fromVault;
  readonly fromWorkloadApi: typeof fromWorkloadApi;
} = { ...builtIn, fromAuthority, fromVault, fromWorkloadApi };
