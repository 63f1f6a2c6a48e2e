import type { Clock } from '@sallyport/core/spi';
import type { MakeServerLane, ServerLane } from '@sallyport/transport-mtls/spi';

/** Somebody who is connected. */
export interface ConnectedPeer {
  /** SPIFFE ID. */
  readonly peer: string;
  readonly connections: number;
  /** Since when there has been at least one, ms since the epoch. */
  readonly since: number;
}

/** Who is connected to the door. */
export class Peers {
  readonly #clock: Clock;
  readonly #connected = new Map<string, { connections: number; readonly since: number }>();
  #accepted = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Connections since the start. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Those with the most connections first. */
  list(): ConnectedPeer[] {
    return [...this.#connected]
      .map(([peer, { connections, since }]) => ({ peer, connections, since }))
      .sort((a, b) => b.connections - a.connections || (a.peer < b.peer ? -1 : 1));
  }

  /** The same lane, whose connections are counted. */
  counted(make: MakeServerLane): MakeServerLane {
    return (host, limits): ServerLane => {
      const lane = make(host, limits);
      return {
        protocol: lane.protocol,
        close: () => lane.close(),
        accept: (socket, peer) => {
          const leave = this.#enter(peer.identity.id);
          const connection = lane.accept(socket, peer);
          return {
            drain: (graceMs) => connection.drain(graceMs),
            release: () => {
              leave();
              connection.release();
            },
          };
        },
      };
    };
  }

  #enter(peer: string): () => void {
    this.#accepted++;
    const entry = this.#connected.get(peer) ?? { connections: 0, since: this.#clock.now() };
    this.#connected.set(peer, entry);
    entry.connections++;
    return () => {
      if (--entry.connections === 0) this.#connected.delete(peer);
    };
  }
}
