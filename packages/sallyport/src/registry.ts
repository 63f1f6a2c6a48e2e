import { registry as builtIn } from '@sallyport/core';
import { consul } from '@sallyport/registry-consul';

/** Where services are published and found. */
export const registry: typeof builtIn & { readonly consul: typeof consul } = { ...builtIn, consul };
