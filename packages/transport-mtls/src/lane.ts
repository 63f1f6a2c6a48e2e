import type { TLSSocket } from 'node:tls';
import type { ClientStream, OutgoingCall, PeerIdentity, ServerHost, UnaryFlight } from '@sallyport/core/spi';
import { FAST_PROTOCOL } from './fast/protocol.js';
import type { FloodGuard } from './flood-guard.js';
import type { ProxiedAddresses } from './proxy-header.js';
import type { ResolvedServerLimits } from './server-options.js';

/** `fast`: between peers that both run the SDK; `grpc`: with any gRPC peer. */
export type LaneName = 'fast' | 'grpc';

export const allLanes: readonly LaneName[] = ['fast', 'grpc'];

/** The name of its protocol in ALPN (RFC 7301). */
export function protocolOf(lane: LaneName): string {
  return lane === 'fast' ? FAST_PROTOCOL : 'h2';
}

/**
 * The protocol of a lane that serves clients which offer none in ALPN. Only a door that asks for such a lane lets them in, and it
 * goes on refusing those that offer others (ALPACA: a connection must not end at a door of another protocol).
 */
export const NO_PROTOCOL = '';

/** One accepted connection, seen from the listener. */
export interface LaneConnection {
  /** Asks the peer to go elsewhere (GOAWAY), lets its running calls finish for at most `graceMs`, then ends them. */
  drain(graceMs: number): void;
  /** Releases what the lane holds for it; the socket is closed already. */
  release(): void;
}

/** A verified peer and the guard that every lane tells what its bytes were for. */
export interface AcceptedPeer {
  readonly identity: PeerIdentity;
  readonly guard: FloodGuard;
  /** Who connected to whom, as a declared balancer tells. Left out: the socket knows. */
  readonly addresses?: ProxiedAddresses;
}

/** Serves calls on connections whose peer has been verified. Chosen by the ALPN protocol. */
export interface ServerLane {
  readonly protocol: string;
  accept(socket: TLSSocket, peer: AcceptedPeer): LaneConnection;
  /** Ends every connection at once. */
  close(): void;
}

/** What a lane serves, and where it tells what it refused by itself. */
export type LaneHost = Pick<ServerHost, 'methods' | 'events'>;

export type MakeServerLane = (host: LaneHost, limits: ResolvedServerLimits) => ServerLane;

/** One verified connection to an instance, as the pool sees it. */
export interface ClientLane {
  readonly name: LaneName;
  /** False once it takes no more calls. */
  readonly usable: boolean;
  /** Calls under way. */
  readonly calls: number;
  unary(call: OutgoingCall, message: Uint8Array): UnaryFlight;
  stream(call: OutgoingCall): ClientStream;
  /** Says goodbye; running calls are lost. */
  close(): void;
}
