import { secret as builtIn } from '@sallyport/core';
import { vaultSecret } from '@sallyport/pki';

/** Where credentials come from. None of these throws; what is wrong shows in `check()`. */
export const secret: typeof builtIn & {
  /** A field of a secret in Vault or OpenBao (KV version 2): `secret.vault(options, 'orders/db#password')`. */
  readonly vault: typeof vaultSecret;
} = { ...builtIn, vault: vaultSecret };
