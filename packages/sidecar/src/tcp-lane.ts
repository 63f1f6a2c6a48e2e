import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Authorizer, Clock, EventSink, PeerIdentity, Timer } from '@sallyport/core/spi';
import {
  type AcceptedPeer,
  type LaneConnection,
  type MakeServerLane,
  NO_PROTOCOL,
  reset,
  type ServerLane,
} from '@sallyport/transport-mtls/spi';
import { DirectReader } from './direct-reader.js';
import { resetSocket } from './open-socket.js';
import type { ResolvedLimits } from './options.js';
import type { Program } from './program.js';
import { proxyHeader } from './proxy-protocol.js';
import { relay } from './relay.js';

export interface TcpLaneOptions {
  /** As the rules call it. */
  readonly method: string;
  readonly proxyProtocol: 'v2' | undefined;
  readonly limits: ResolvedLimits;
}

export interface TcpLaneContext {
  readonly program: Program;
  readonly authorizer: Authorizer;
  readonly events: EventSink;
  readonly clock: Clock;
}

/** Passes connections without ALPN on to the program, after one question: may this caller? */
export class TcpLane implements ServerLane {
  readonly protocol = NO_PROTOCOL;
  readonly #options: TcpLaneOptions;
  readonly #context: TcpLaneContext;
  readonly #tunnels = new Set<Tunnel>();

  constructor(options: TcpLaneOptions, context: TcpLaneContext) {
    this.#options = options;
    this.#context = context;
  }

  readonly make: MakeServerLane = () => this;

  accept(socket: TLSSocket, peer: AcceptedPeer): LaneConnection {
    // Before the peer can end its direction, which must not end ours.
    socket.allowHalfOpen = true;
    const tunnel = new Tunnel(socket, peer, this.#context.clock, () => this.#tunnels.delete(tunnel));
    this.#tunnels.add(tunnel);
    if (this.#mayEnter(peer.identity)) void tunnel.open(this.#options, this.#context);
    else tunnel.cut();
    return tunnel;
  }

  /** The rules have changed: whoever may not enter any more must leave. */
  judgeAnew(): void {
    for (const tunnel of [...this.#tunnels]) if (!this.#mayEnter(tunnel.identity)) tunnel.cut();
  }

  close(): void {
    for (const tunnel of [...this.#tunnels]) tunnel.cut();
  }

  #mayEnter(identity: PeerIdentity): boolean {
    const { authorizer, events } = this.#context;
    const { method } = this.#options;
    const { allowed, rule } = authorizer.decide(identity, `/${method}`);
    if (!allowed) events.emit('call-denied', { peer: identity.id, method, rule });
    return allowed;
  }
}

class Tunnel implements LaneConnection {
  readonly #socket: TLSSocket;
  readonly #peer: AcceptedPeer;
  readonly #clock: Clock;
  readonly #onReleased: () => void;
  #connecting: AbortController | undefined;
  #program: Socket | undefined;
  #grace: Timer | undefined;

  constructor(socket: TLSSocket, peer: AcceptedPeer, clock: Clock, onReleased: () => void) {
    this.#socket = socket;
    this.#peer = peer;
    this.#clock = clock;
    this.#onReleased = onReleased;
  }

  get identity(): PeerIdentity {
    return this.#peer.identity;
  }

  async open({ limits, proxyProtocol }: TcpLaneOptions, { program }: TcpLaneContext): Promise<void> {
    const caller = this.#socket;
    const { guard, identity, addresses } = this.#peer;
    caller.setTimeout(limits.idleTimeoutMs, () => this.cut());
    const reader = new DirectReader(limits.maxBufferedBytes);
    this.#connecting = new AbortController();
    let local: Socket;
    try {
      local = await program.connect(this.#connecting.signal, reader);
    } catch {
      // The program has told of it; the caller learns that nobody took what it said.
      this.cut();
      return;
    } finally {
      this.#connecting = undefined;
    }
    if (caller.destroyed) {
      local.destroy();
      return;
    }
    this.#program = local;
    if (proxyProtocol) local.write(proxyHeader(addresses ?? caller, identity.id));
    relay(
      { socket: caller, reset: () => reset(caller), onRead: (bytes) => guard.message(bytes) },
      { socket: local, reset: () => resetSocket(local), onRead: (bytes) => guard.sent(bytes), reader },
      limits.maxBufferedBytes,
    );
    local.resume();
  }

  /** TCP has no word for "go elsewhere": the connection has the grace to come to its end. */
  drain(graceMs: number): void {
    this.#grace ??= this.#clock.after(graceMs, () => this.cut());
  }

  cut(): void {
    reset(this.#socket);
    if (this.#program) resetSocket(this.#program);
  }

  release(): void {
    this.#grace?.cancel();
    this.#connecting?.abort();
    this.#onReleased();
  }
}
