import { fromFiles } from './from-files.js';

/** Where a workload's identity comes from. */
export const tls = { fromFiles } as const;
