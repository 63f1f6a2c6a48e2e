import { connect, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import {
  CallError,
  type ClientHost,
  type ClientStream,
  type Connection,
  type ConnectionPool,
  type ConnectTarget,
  clientHandshake,
  type EventMap,
  every,
  type OutgoingCall,
  type PeerIdentity,
  revocationProblem,
  ServerRefusedError,
  Status,
  type Timer,
  type TlsMaterial,
  type UnaryFlight,
} from '@sallyport/core/spi';
import type { ResolvedClientOptions } from './client-options.js';
import { coarse, lifeOf, spread } from './connection-life.js';
import { FastChannel } from './fast/client-lane.js';
import { DeadlineWheel } from './fast/deadline-wheel.js';
import { FAST_PROTOCOL } from './fast/protocol.js';
import { GrpcChannel } from './grpc/client-lane.js';
import { type ClientLane, type LaneName, protocolOf } from './lane.js';

/** How often connections are checked for their age and for certificates that end, ms. */
const PATROL_MS = 1000;
/** The handshake's own timeout speaks first, because it knows why. */
const LAST_WORD_MS = 50;

interface PoolContext {
  readonly host: ClientHost;
  readonly options: ResolvedClientOptions;
  /** In order of preference. */
  readonly lanes: readonly LaneName[];
  readonly wheel: DeadlineWheel;
  /** The time of a connection is up. */
  readonly onOld: () => void;
  /** Targets that speak plain gRPC only: asked once, then dialled as such. */
  readonly plainPeers: Set<string>;
}

/** One connection per instance and per generation of our identity. */
export class Pool implements ConnectionPool {
  readonly #context: PoolContext;
  readonly #connections = new Map<string, PooledConnection>();
  /** Replaced ones whose calls are still running. */
  readonly #retired = new Set<PooledConnection>();
  readonly #unsubscribe: () => void;
  readonly #patrol: Timer;
  #closed = false;

  constructor(host: ClientHost, options: ResolvedClientOptions, lanes: readonly LaneName[]) {
    const onOld = () => this.#inspect();
    this.#context = { host, options, lanes, wheel: new DeadlineWheel(), onOld, plainPeers: new Set() };
    this.#unsubscribe = host.tls.onChange((material) => this.#follow(material));
    this.#patrol = every(host.clock, PATROL_MS, () => this.#inspect());
  }

  live(target: ConnectTarget): Connection | undefined {
    const connection = this.#connections.get(target.key);
    return connection?.usable && connection.serves(target) ? connection : undefined;
  }

  async connect(target: ConnectTarget, deadlineAt: number): Promise<Connection> {
    for (;;) {
      const connection = this.#connectionTo(target);
      try {
        await connection.ready(deadlineAt);
        if (connection.serves(target)) return connection;
        throw new CallError('UNAVAILABLE', `${connection.peer.id} answered, expected ${target.expect.description}`);
      } catch (error) {
        if (this.#closed || isOver(error)) throw error;
        // A rotation gave up the attempt, not the server: once more, with the new identity.
        if (connection.outdated) continue;
        this.#forget(connection);
        throw error;
      }
    }
  }

  retain(service: string, instances: ReadonlySet<string>): void {
    for (const [key, connection] of this.#connections) {
      if (connection.target.service !== service || instances.has(connection.target.instance)) continue;
      this.#connections.delete(key);
      this.#context.plainPeers.delete(key);
      this.#retire(connection);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unsubscribe();
    this.#patrol.cancel();
    for (const connection of [...this.#connections.values(), ...this.#retired]) connection.destroy();
    this.#connections.clear();
    this.#retired.clear();
  }

  #connectionTo(target: ConnectTarget): PooledConnection {
    if (this.#closed) throw new CallError('UNAVAILABLE', 'the client is closed');
    const { suspended } = this.#context.host.tls;
    if (suspended) throw new CallError('UNAVAILABLE', `the own identity may not be used: ${suspended.detail}`);
    const known = this.#connections.get(target.key);
    if (known && !known.spent) return known;
    if (known) this.#retire(known);
    const connection = new PooledConnection(target, this.#context);
    this.#connections.set(target.key, connection);
    return connection;
  }

  /** A channel that failed once keeps its callers waiting for a back-off that nobody sees: the next call gets a new one. */
  #forget(connection: PooledConnection): void {
    const { key } = connection.target;
    if (connection.usable || this.#connections.get(key) !== connection) return;
    this.#connections.delete(key);
    this.#retire(connection);
  }

  #follow(material: TlsMaterial): void {
    for (const connection of [...this.#connections.values(), ...this.#retired]) connection.judge(material);
    this.#retireWhere((connection) => connection.ended || connection.outdated);
  }

  #inspect(): void {
    for (const connection of [...this.#connections.values(), ...this.#retired]) connection.endInTime();
    this.#retireWhere((connection) => connection.ended || connection.old);
  }

  #retireWhere(condition: (connection: PooledConnection) => boolean): void {
    for (const [key, connection] of this.#connections) {
      if (!condition(connection)) continue;
      this.#connections.delete(key);
      this.#retire(connection);
    }
  }

  #retire(connection: PooledConnection): void {
    this.#retired.add(connection);
    connection.retire(() => this.#retired.delete(connection));
  }
}

class PooledConnection implements Connection {
  readonly target: ConnectTarget;
  /** Whether it was ended for good, whatever its calls. */
  ended = false;
  readonly #context: PoolContext;
  readonly #material: TlsMaterial;
  #lane: ClientLane | undefined;
  /** Redials by itself, so it is made once. */
  #grpc: GrpcChannel | undefined;
  /** Of a server that chose plain gRPC: the connection that told us, waiting for grpc-js. */
  #plain: TLSSocket | undefined;
  #tcp: Socket | undefined;
  #socket: TLSSocket | undefined;
  #peer: PeerIdentity | undefined;
  #revocationKeys: readonly string[] = [];
  /** When it is to be replaced, and when it ends; ms since the epoch. */
  #oldAt = Number.POSITIVE_INFINITY;
  #endsAt = Number.POSITIVE_INFINITY;
  #age: Timer | undefined;
  #attempt: Promise<void> | undefined;
  #lastFailure = 'nobody answers';
  #onIdle: (() => void) | undefined;
  #grace: Timer | undefined;

  constructor(target: ConnectTarget, context: PoolContext) {
    this.target = target;
    this.#context = context;
    this.#material = context.host.tls.current();
  }

  get lane(): string {
    return this.#lane?.name ?? 'none';
  }

  get peer(): PeerIdentity {
    // A connection is handed out after its handshake only.
    return this.#peer as PeerIdentity;
  }

  /** Whether the peer is one that the target expects: the key of a connection is no proof of identity. */
  serves(target: ConnectTarget): boolean {
    return target.expect === this.target.expect || target.expect.matches(this.peer.spiffeId);
  }

  get usable(): boolean {
    return (this.#lane?.usable ?? false) && !this.#expired;
  }

  /** It had its connection, and that one takes no more calls. */
  get spent(): boolean {
    if (this.#expired || this.#lane === undefined) return this.#expired;
    if (this.#lane !== this.#grpc) return !this.#lane.usable;
    return this.#attempt === undefined && this.#grpc.hasFailed;
  }

  /** The server's certificate has run out since: it must show a new one before it gets another call. */
  get #expired(): boolean {
    return this.#peer !== undefined && this.#peer.notAfter <= Date.now();
  }

  /** Made with an identity that has been rotated since. */
  get outdated(): boolean {
    return this.#material !== this.#context.host.tls.current();
  }

  /** Its time is up: another one takes the calls to come, and the running ones have a while. */
  get old(): boolean {
    return this.#context.host.clock.now() >= this.#oldAt;
  }

  /** Joins the attempt under way, or starts one; the attempt outlives an impatient call, because others may have joined it. */
  ready(deadlineAt: number): Promise<void> {
    if (this.usable) return Promise.resolve();
    this.#attempt ??= this.#connect().finally(() => {
      this.#attempt = undefined;
    });
    return before(deadlineAt, this.#attempt, `the deadline passed while connecting to ${this.#address}`);
  }

  unary(call: OutgoingCall, message: Uint8Array): UnaryFlight {
    return this.#open.unary(call, message);
  }

  stream(call: OutgoingCall): ClientStream {
    return this.#open.stream(call);
  }

  /** Takes no more calls; closes when the running ones have ended, at the latest after the grace. */
  retire(onClosed: () => void): void {
    this.#onIdle = () => {
      this.#onIdle = undefined;
      this.#grace?.cancel();
      this.#age?.cancel();
      this.#lane?.close();
      // The attempt under way fails, and those who wait for it try again with the new identity.
      if (!this.#lane) this.#tcp?.destroy();
      // grpc-js does not close a connection that it has not come to use.
      if (this.#lane === this.#grpc) this.#socket?.destroy();
      onClosed();
    };
    const { host, options } = this.#context;
    const graceMs = Math.min(options.rotationGraceMs, coarse(this.#endsAt - host.clock.now()));
    this.#grace = host.clock.after(graceMs, () => {
      this.#onIdle?.();
      this.destroy();
    });
    this.#closeIfIdle();
  }

  /** Ends the connection at once when the server's certificate has been revoked, or our own may not be used any more. */
  judge(material: TlsMaterial): void {
    const { suspended } = this.#context.host.tls;
    const problem = suspended ?? revocationProblem(material, this.#revocationKeys, this.#context.host.clock.now());
    if (problem) this.#evict(problem);
  }

  /** No connection outlives the certificates it was opened with, whatever calls are still running. */
  endInTime(): void {
    if (this.#context.host.clock.now() <= this.#endsAt) return;
    this.#evict({ reason: 'expired', detail: 'a certificate it was opened with has expired' });
  }

  destroy(): void {
    this.ended = true;
    this.#grace?.cancel();
    this.#age?.cancel();
    this.#lane?.close();
    this.#grpc?.close();
    this.#socket?.destroy();
    this.#tcp?.destroy();
  }

  get #open(): ClientLane {
    // A connection is handed out once it is open only.
    return this.#lane as ClientLane;
  }

  readonly #laneIdle = (): void => {
    if (this.#onIdle) this.#closeIfIdle();
  };

  /** Not in this turn of the event loop: whoever was just handed the connection has yet to begin its call. */
  #closeIfIdle(): void {
    setImmediate(() => {
      if ((this.#lane?.calls ?? 0) === 0) this.#onIdle?.();
    });
  }

  async #connect(): Promise<void> {
    const { lanes, plainPeers, options } = this.#context;
    const deadlineAt = Date.now() + options.connectTimeoutMs;
    if (lanes.includes('fast') && !plainPeers.has(this.target.key)) {
      const fast = await this.#dial(deadlineAt);
      if (fast) {
        this.#lane = fast;
        return;
      }
      plainPeers.add(this.target.key);
    }
    await this.#connectGrpc(deadlineAt);
  }

  /** A connection on the fast lane, or undefined when the server speaks plain gRPC only. */
  async #dial(deadlineAt: number): Promise<FastChannel | undefined> {
    const { options, wheel, lanes, host } = this.#context;
    const socket = await this.#handshake(await this.#connectTcp(deadlineAt), lanes.map(protocolOf), deadlineAt);
    if (socket.alpnProtocol !== FAST_PROTOCOL) {
      socket.on('error', ignore);
      this.#plain = socket;
      return undefined;
    }
    const channel = new FastChannel(socket, {
      options,
      wheel,
      onIdle: this.#laneIdle,
      onViolation: (detail) => {
        host.events.emit('connection-closed-by-policy', { peer: this.peer.id, reason: 'abuse', detail });
      },
    });
    await channel.ready().catch((error: Error) => {
      throw new CallError('UNAVAILABLE', `${this.#address}: ${error.message}`);
    });
    return channel;
  }

  #connectTcp(deadlineAt: number): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const tcp = connect({ ...this.target.endpoint, noDelay: true });
      this.#tcp = tcp;
      const timer = setTimeout(() => tcp.destroy(new Error('no TCP connection in time')), deadlineAt - Date.now());
      const settle = (error?: NodeJS.ErrnoException): void => {
        clearTimeout(timer);
        tcp.off('connect', settle).off('error', settle).off('close', settle);
        tcp.on('error', ignore);
        if (tcp.readyState === 'open' && !error) resolve(tcp);
        else
          reject(
            new CallError('UNAVAILABLE', `${this.#address}: ${error?.code ?? error?.message ?? 'nobody answers'}`),
          );
      };
      tcp.once('connect', settle).once('error', settle).once('close', settle);
    });
  }

  /** grpc-js dials by itself; the handshake was made, though, so its TCP connection is not needed the first time. */
  #takePlain(tcp: Socket): Promise<Socket> | undefined {
    const socket = this.#plain;
    this.#plain = undefined;
    if (!socket || socket.destroyed) return undefined;
    tcp.destroy();
    return Promise.resolve(socket);
  }

  async #connectGrpc(deadlineAt: number): Promise<void> {
    const { options } = this.#context;
    this.#grpc ??= new GrpcChannel(
      this.target.endpoint,
      (tcp) => this.#takePlain(tcp) ?? this.#handshake(tcp, ['h2'], Date.now() + options.connectTimeoutMs),
      options,
      this.#laneIdle,
    );
    this.#lane = this.#grpc;
    if (await this.#grpc.connect(deadlineAt + LAST_WORD_MS)) return;
    throw new CallError('UNAVAILABLE', `${this.#address}: ${this.#lastFailure}`);
  }

  #beginLife(peer: PeerIdentity): void {
    const { options, host, onOld } = this.#context;
    const now = host.clock.now();
    const { endsAt, drainAt } = lifeOf([this.#material, peer], options.rotationGraceMs, now);
    this.#endsAt = endsAt;
    this.#oldAt = Math.min(now + spread(options.maxConnectionAgeMs), now + coarse(drainAt - now));
    this.#age?.cancel();
    this.#age = host.clock.after(this.#oldAt - now, onOld);
  }

  get #address(): string {
    const { host, port } = this.target.endpoint;
    return `${host}:${port}`;
  }

  async #handshake(tcp: Socket, protocols: readonly string[], deadlineAt: number): Promise<TLSSocket> {
    try {
      const { socket, peer, revocationKeys } = await clientHandshake(tcp, {
        expect: { identity: this.target.expect },
        material: this.#material,
        protocols,
        timeoutMs: Math.max(1, deadlineAt - Date.now()),
      });
      this.#socket = socket;
      this.#peer = peer;
      this.#revocationKeys = revocationKeys;
      this.#beginLife(peer);
      // TLS 1.3: the client is done before the server has judged it, and grpc-js tells no reason.
      this.#lastFailure = 'it ended the connection after the handshake, as a server does that refuses our certificate';
      return socket;
    } catch (error) {
      this.#refused(error);
      throw error instanceof ServerRefusedError
        ? new CallError('UNAVAILABLE', `${this.#address}: ${this.#lastFailure}`, { cause: error })
        : error;
    }
  }

  #evict({ reason, detail }: Pick<EventMap['connection-closed-by-policy'], 'reason' | 'detail'>): void {
    // Once: what was ended is looked at again until its calls have heard of it.
    if (this.#peer && !this.ended) {
      const peer = this.#peer.id;
      this.#context.host.events.emit('connection-closed-by-policy', { peer, reason, detail });
    }
    this.destroy();
  }

  #refused(error: unknown): void {
    if (!(error instanceof ServerRefusedError)) {
      const { code, message } = error as NodeJS.ErrnoException;
      this.#lastFailure = `the handshake broke off: ${code ?? message}`;
      return;
    }
    this.#lastFailure = `${error.reason}: ${error.message}`;
    this.#context.host.events.emit('server-identity-refused', {
      target: this.target.service,
      reason: error.reason,
      detail: error.message,
      address: this.#address,
      ...(error.presented === undefined ? {} : { presented: error.presented }),
    });
  }
}

function isOver(error: unknown): boolean {
  return error instanceof CallError && error.code === Status.DEADLINE_EXCEEDED;
}

function before<T>(deadlineAt: number, work: Promise<T>, late: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new CallError('DEADLINE_EXCEEDED', late)),
      Math.max(0, deadlineAt - Date.now()),
    );
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

function ignore(): void {}
