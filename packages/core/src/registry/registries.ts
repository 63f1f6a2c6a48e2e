import { local } from './local.js';
import { memory } from './memory.js';

/** The registries that need no server. */
export const registry = { memory, local } as const;
