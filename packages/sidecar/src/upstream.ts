import { createServer, isIP, type Server as NetServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { IdentityMatcher } from '@sallyport/core';
import {
  type Clock,
  clientHandshake,
  type EndpointPolicy,
  type EventMap,
  type EventSink,
  type LocalAddress,
  listenLocally,
  localAddressText,
  type PeerIdentity,
  revocationProblem,
  ServerRefusedError,
  type Timer,
  type TlsHandle,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { coarse, lifeOf, reset, spread } from '@sallyport/transport-mtls/spi';
import { allowedLookup } from './allowed-lookup.js';
import { openSocket, resetSocket } from './open-socket.js';
import type { ResolvedLimits } from './options.js';
import { relay } from './relay.js';
import type { Server, Servers } from './servers.js';

export interface UpstreamContext {
  readonly tls: TlsHandle;
  readonly events: EventSink;
  readonly clock: Clock;
  readonly limits: ResolvedLimits;
}

export interface UpstreamTarget {
  readonly name: string;
  readonly listen: LocalAddress;
  readonly servers: Servers;
  /** Who must answer, wherever the servers are. */
  readonly expect: IdentityMatcher;
  readonly endpoints: EndpointPolicy;
}

/** A verified connection to a server of the upstream. */
interface Verified {
  readonly socket: TLSSocket;
  readonly peer: PeerIdentity;
  readonly revocationKeys: readonly string[];
  /** What we showed. */
  readonly material: TlsMaterial;
  readonly server: Server;
}

type Eviction = Pick<EventMap['connection-closed-by-policy'], 'reason' | 'detail'>;

/** The port of one upstream on this machine: whatever the program sends there goes to a server that proved who it is, and nowhere else. */
export class UpstreamPort {
  readonly #target: UpstreamTarget;
  readonly #context: UpstreamContext;
  readonly #server: NetServer;
  readonly #open = new Set<Tunnel>();
  readonly #locals = new Set<Socket>();
  readonly #closing = new AbortController();
  readonly #unsubscribe: () => void;
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
      this.#address = await listenLocally(this.#server, listen, name);
    } catch (error) {
      this.#unsubscribe();
      throw error;
    }
    this.#server.on('error', (error: NodeJS.ErrnoException) => {
      this.#context.events.emit('accept-failed', { detail: error.code ?? error.name });
    });
    this.#context.events.emit('listening', { address: localAddressText(this.#address) });
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
    this.#closing.abort();
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : undefined;
    for (const tunnel of [...this.#open]) tunnel.cut();
    for (const socket of [...this.#locals]) socket.destroy();
    await closed;
  }

  async #accept(local: Socket): Promise<void> {
    this.#locals.add(local);
    const gone = new AbortController();
    local.on('error', ignore);
    local.once('close', () => {
      this.#locals.delete(local);
      gone.abort();
    });
    try {
      const verified = await this.#connect(AbortSignal.any([gone.signal, this.#closing.signal]));
      if (local.destroyed) verified.socket.destroy();
      else this.#join(local, verified);
    } catch (error) {
      if (!gone.signal.aborted && !this.#closing.signal.aborted) {
        const detail = error instanceof Error ? error.message : 'connecting failed';
        this.#context.events.emit('upstream-unreachable', { upstream: this.#target.name, detail });
      }
      resetSocket(local);
    }
  }

  /** Tries another server when one cannot be reached or is not who it should be: nothing has been sent yet. */
  async #connect(giveUp: AbortSignal): Promise<Verified> {
    const { servers } = this.#target;
    await servers.ready(Date.now() + this.#context.limits.connectTimeoutMs);
    const tried = new Set<string>();
    const failures: string[] = [];
    for (;;) {
      const server = servers.pick(tried);
      if (!server) {
        throw new Error(failures.length > 0 ? failures.join('; ') : 'no server of it is known');
      }
      try {
        const verified = await this.#handshake(server, giveUp);
        server.passedOverUntil = 0;
        return verified;
      } catch (error) {
        if (giveUp.aborted) throw error;
        servers.failed(server);
        tried.add(server.instance.id);
        failures.push(error instanceof Error ? error.message : 'connecting failed');
      }
    }
  }

  async #handshake(server: Server, giveUp: AbortSignal): Promise<Verified> {
    const { expect, endpoints, name } = this.#target;
    const { tls, limits, events } = this.#context;
    if (tls.suspended) throw new Error(`the own identity may not be used: ${tls.suspended.detail}`);
    const [endpoint] = server.instance.endpoints;
    if (!endpoint) throw new Error('it has no address');
    const address =
      isIP(endpoint.host) === 6 ? `[${endpoint.host}]:${endpoint.port}` : `${endpoint.host}:${endpoint.port}`;
    const tcp = await openSocket(
      { host: endpoint.host, port: endpoint.port, lookup: allowedLookup(endpoints) },
      limits.connectTimeoutMs,
      giveUp,
    ).catch((error: Error) => {
      throw new Error(`${address}: ${error.message}`);
    });
    const material = tls.current();
    const abandon = () => tcp.destroy();
    giveUp.addEventListener('abort', abandon);
    try {
      const verified = await clientHandshake(tcp, {
        expect: { identity: expect },
        material,
        protocols: [],
        timeoutMs: limits.handshakeTimeoutMs,
      });
      return { ...verified, material, server };
    } catch (error) {
      tcp.destroy();
      if (!(error instanceof ServerRefusedError)) throw error;
      const { reason, message: detail, presented } = error;
      if (!giveUp.aborted) {
        events.emit('server-identity-refused', {
          target: name,
          reason,
          detail,
          address,
          ...(presented === undefined ? {} : { presented }),
        });
      }
      throw new Error(`${address}: ${detail}`);
    } finally {
      giveUp.removeEventListener('abort', abandon);
    }
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
