export { type LoadSidecarOptions, loadSidecar } from './config/file-sidecar.js';
export { sidecarFileJsonSchema, type UpdateProcess } from './config/sidecar-document.js';
export {
  type AmendedDocument,
  type ReadSidecarConfig,
  type ReadSidecarConfigOptions,
  readSidecarConfig,
} from './config/sidecar-file.js';
export { handedSockets } from './handover/handed-sockets.js';
export type { HandedSocket, ListeningSockets, OpenSocket } from './handover/listening-sockets.js';
export type { SuccessorOptions } from './handover/successor.js';
export { type Update, type UpdateOptions, updateSidecar } from './handover/update-sidecar.js';
export type { InboundOptions, SidecarLimits, SidecarOptions, UpstreamOptions } from './options.js';
export { type RunSidecarOptions, runSidecar } from './run-sidecar.js';
export { type Sidecar, type SidecarChanges, sidecar } from './sidecar.js';
