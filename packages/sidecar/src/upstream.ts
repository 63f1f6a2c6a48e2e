import { createServer, type Server as NetServer, type Socket } from 'node:net';
import {
  type Clock,
  type EventMap,
  type LocalAddress,
  localAddressText,
  revocationProblem,
  type Timer,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { coarse, lifeOf, reset, spread } from '@sallyport/transport-mtls/spi';
import { type DialContext, type DialTarget, dial, type Verified } from './dial.js';
import type { ListeningSockets } from './handover/listening-sockets.js';
import { resetSocket } from './open-socket.js';
import { relay } from './relay.js';
import type { Server, Servers } from './servers.js';

export interface UpstreamContext extends DialContext {
  readonly clock: Clock;
  readonly sockets: ListeningSockets;
}

export interface UpstreamTarget extends DialTarget {
  readonly listen: LocalAddress;
  readonly servers: Servers;
}

type Eviction = Pick<EventMap['connection-closed-by-policy'], 'reason' | 'detail'>;

/** The port of one upstream on this machine: whatever the program sends there goes to a server that proved who it is, and nowhere else. */
export class UpstreamPort {
  readonly #context: UpstreamContext;
  readonly #server: NetServer;
  readonly #open = new Set<Tunnel>();
  /** Connections of the program, with what gives up dialling for them. */
  readonly #locals = new Map<Socket, AbortController>();
  readonly #unsubscribe: () => void;
  #target: UpstreamTarget;
  #address: LocalAddress;

  constructor(target: UpstreamTarget, context: UpstreamContext) {
    this.#target = target;
    this.#context = context;
    this.#address = target.listen;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
    this.#server.maxConnections = context.limits.maxUpstreamConnections;
    this.#unsubscribe = context.tls.onChange((material) => this.#judge(material));
  }

  /** Where the program reaches it; port 0 has become the real one. */
  get address(): LocalAddress {
    return this.#address;
  }

  /** Connections of the program. */
  get connections(): number {
    return this.#locals.size;
  }

  /** Rejects with CallError UNAVAILABLE when the address cannot be had. */
  async bind(): Promise<void> {
    const { listen, name } = this.#target;
    try {
      this.#address = await this.#context.sockets.listen(`upstream-${name}`, this.#server, listen);
    } catch (error) {
      this.#unsubscribe();
      throw error;
    }
    this.#server.on('error', (error: NodeJS.ErrnoException) => {
      this.#context.events.emit('accept-failed', { detail: error.code ?? error.name });
    });
    this.#context.events.emit('listening', { address: localAddressText(this.#address) });
  }

  /** The next connections go to other servers, or expect somebody else there; the open ones stay as they are. */
  retarget(target: Omit<UpstreamTarget, 'listen'>): void {
    this.#target = { ...target, listen: this.#target.listen };
  }

  /** Takes no new connection, and lets the open ones end by themselves for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    if (this.#server.listening) this.#server.close();
    const deadline = Date.now() + graceMs;
    while (this.#locals.size > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
    await this.close();
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : undefined;
    for (const tunnel of [...this.#open]) tunnel.cut();
    for (const [socket, gone] of this.#locals) {
      gone.abort();
      socket.destroy();
    }
    await closed;
  }

  async #accept(local: Socket): Promise<void> {
    // One for each: Node remembers every combination with a signal that lives as long as the port.
    const gone = new AbortController();
    this.#locals.set(local, gone);
    local.on('error', ignore);
    local.once('close', () => {
      this.#locals.delete(local);
      gone.abort();
    });
    try {
      const verified = await this.#connect(gone.signal);
      if (local.destroyed) verified.socket.destroy();
      else this.#join(local, verified);
    } catch (error) {
      if (!gone.signal.aborted) {
        const detail = error instanceof Error ? error.message : 'connecting failed';
        this.#context.events.emit('upstream-unreachable', { upstream: this.#target.name, detail });
      }
      resetSocket(local);
    }
  }

  /** Nothing has been sent until then, so trying elsewhere is safe. */
  #connect(giveUp: AbortSignal): Promise<Verified> {
    const connect = (server: Server) => dial(server, this.#target, this.#context, { protocols: [], giveUp });
    const { connectTimeoutMs } = this.#context.limits;
    return this.#target.servers.reach(connect, { connectTimeoutMs, giveUp });
  }

  #join(local: Socket, verified: Verified): void {
    const tunnel = new Tunnel(local, verified, this.#context);
    this.#open.add(tunnel);
    verified.socket.once('close', () => this.#open.delete(tunnel));
    // It may have been revoked while the handshake ran.
    this.#judge(this.#context.tls.current());
  }

  #judge(material: TlsMaterial): void {
    for (const tunnel of [...this.#open]) tunnel.judge(material);
  }
}

/** A connection of the program joined to one of the upstream. */
class Tunnel {
  readonly #local: Socket;
  readonly #verified: Verified;
  readonly #context: UpstreamContext;
  readonly #age: Timer;
  readonly #end: Timer;

  constructor(local: Socket, verified: Verified, context: UpstreamContext) {
    this.#local = local;
    this.#verified = verified;
    this.#context = context;
    const { clock, limits } = context;
    const { socket, server, peer, material } = verified;
    const now = clock.now();
    const { endsAt } = lifeOf([material, peer], limits.maxConnectionAgeGraceMs, now);
    this.#age = clock.after(spread(limits.maxConnectionAgeMs + limits.maxConnectionAgeGraceMs), () => this.cut());
    this.#end = clock.after(coarse(endsAt - now), () =>
      this.#evict({ reason: 'expired', detail: 'a certificate it was opened with has expired' }),
    );
    server.pending++;
    socket.on('error', ignore);
    socket.setTimeout(limits.idleTimeoutMs, () => this.cut());
    socket.once('close', () => {
      server.pending--;
      this.#age.cancel();
      this.#end.cancel();
    });
    relay(
      { socket: local, reset: () => resetSocket(local) },
      { socket, reset: () => reset(socket) },
      limits.maxBufferedBytes,
    );
    local.resume();
  }

  /** Ends it when the server has been revoked, or the own identity may not be used any more. */
  judge(material: TlsMaterial): void {
    const { tls, clock } = this.#context;
    const problem = tls.suspended ?? revocationProblem(material, this.#verified.revocationKeys, clock.now());
    if (problem) this.#evict(problem);
  }

  cut(): void {
    reset(this.#verified.socket);
    resetSocket(this.#local);
  }

  #evict({ reason, detail }: Eviction): void {
    this.#context.events.emit('connection-closed-by-policy', { peer: this.#verified.peer.id, reason, detail });
    this.cut();
  }
}

function ignore(): void {}
