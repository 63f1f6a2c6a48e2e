import type { MethodKind } from '../contract/contract.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import type { Call } from '../service/call.js';
import type { Metadata } from './metadata.js';

/**
 * Stands around every call that a service serves, after authorization and validation. `request` is the message, or an
 * AsyncIterable of messages where the caller streams; `next` returns a promise of the response, or an AsyncIterable
 * where the service streams. Throw CallError to end the call.
 */
export type ServerInterceptor = (
  request: unknown,
  call: Call & { readonly kind: MethodKind },
  next: (request: unknown) => unknown,
) => unknown;

/** A call on its way out, as interceptors of the client see it. */
export interface ClientCall {
  /** `package.Service/Method` */
  readonly method: string;
  readonly kind: MethodKind;
  /** Name of the called service. */
  readonly service: string;
  /** Ms since the epoch. */
  readonly deadlineAt: number;
  /** May be added to until `next` is called. */
  readonly metadata: Metadata;
  /** Who answers; known once the call has a connection. */
  readonly peer: PeerIdentity | undefined;
}

/** Stands around every call that a client makes. Shapes of `request` and `next` as with ServerInterceptor. */
export type ClientInterceptor = (request: unknown, call: ClientCall, next: (request: unknown) => unknown) => unknown;
