import type { Service } from '@sallyport/core';
import type { Clock, EventSink } from '@sallyport/core/spi';
import type { ResolvedLimits } from '../options.js';
import type { Breaker } from '../resilience/breaker.js';
import type { CallMetadata } from '../routes/rpc-handler.js';

/** What one stream may take, in either direction. */
export type StreamLimits = Pick<
  ResolvedLimits,
  | 'maxBodyBytes'
  | 'maxJsonDepth'
  | 'maxJsonKeys'
  | 'maxStreamBytes'
  | 'streamTimeoutMs'
  | 'streamIdleTimeoutMs'
  | 'heartbeatMs'
>;

export interface StreamContext {
  readonly service: Service;
  readonly metadata: CallMetadata;
  readonly events: EventSink;
  readonly breaker: Breaker;
  readonly limits: StreamLimits;
  readonly clock: Clock;
  /** Aborted when the gateway will not wait any longer for streams to end. */
  readonly leaving: AbortSignal;
}
