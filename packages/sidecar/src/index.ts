export { sidecarFileJsonSchema, type UpdateProcess } from './config/sidecar-document.js';
export {
  type AmendedDocument,
  type ReadSidecarConfig,
  type ReadSidecarConfigOptions,
  readSidecarConfig,
} from './config/sidecar-file.js';
export type { InboundOptions, SidecarLimits, SidecarOptions, UpstreamOptions } from './options.js';
export { type Sidecar, sidecar } from './sidecar.js';
