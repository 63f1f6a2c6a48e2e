import type { TLSSocket } from 'node:tls';
import type { PeerIdentity, ServerHost } from '@sallyport/core/spi';
import type { FloodGuard } from './flood-guard.js';
import type { ResolvedServerLimits } from './server-options.js';

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
