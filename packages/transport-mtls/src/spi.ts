export { clientOn } from './client.js';
export { coarse, lifeOf, spread } from './connection-life.js';
export {
  encodeTrailers,
  type RequestHead,
  type ResponseFields,
  readRequest,
  readResponse,
  requestFields,
  statusOfReset,
  timeoutText,
  toCallError,
  toMetadata,
} from './fast/call-headers.js';
export { FastChannel, type FastChannelContext } from './fast/client-lane.js';
export type { HeldMemory } from './fast/connection.js';
export { DeadlineWheel, Timed } from './fast/deadline-wheel.js';
export { consumed, grant, shifted, widened } from './fast/flow-control.js';
export { ErrorCode, Flag, FrameType, PREFACE, ProfileViolation, Setting } from './fast/frames.js';
export { BlockCache, decodeFields, encodeFields, type Fields } from './fast/headers.js';
export { MessageAssembler, type MessageProblem, type MessageSink } from './fast/messages.js';
export { NuisanceBudget } from './fast/nuisance-budget.js';
export { FAST_PROTOCOL } from './fast/protocol.js';
export { FrameReader, type FrameSink } from './fast/reader.js';
export { fastServerLane } from './fast/server-lane.js';
export { FrameWriter } from './fast/writer.js';
export { FloodGuard } from './flood-guard.js';
export {
  type AcceptedPeer,
  allLanes,
  type LaneConnection,
  type LaneName,
  type MakeServerLane,
  NO_PROTOCOL,
  type ServerLane,
} from './lane.js';
export { serverOn } from './server.js';
export { parseServerOptions, type ResolvedServerOptions } from './server-options.js';
export { isEnding, reset } from './tcp-below.js';
export { listen } from './tls-listener.js';
