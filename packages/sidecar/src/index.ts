export type { InboundOptions, SidecarLimits, SidecarOptions, UpstreamOptions } from './options.js';
export { type Sidecar, sidecar } from './sidecar.js';
