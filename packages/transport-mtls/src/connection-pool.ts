import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import {
  CallError,
  type ClientHost,
  type ClientStream,
  type Connection,
  type ConnectionPool,
  type ConnectTarget,
  isRevoked,
  type OutgoingCall,
  type PeerIdentity,
  Status,
  type Timer,
  type TlsMaterial,
  type UnaryFlight,
} from '@sallyport/core/spi';
import type { ResolvedClientOptions } from './client-options.js';
import { GrpcChannel } from './grpc/client-lane.js';
import { HandshakeRefusedError, handshake } from './handshake.js';

/** The handshake's own timeout speaks first, because it knows why. */
const LAST_WORD_MS = 50;

/** One connection per instance and per generation of our identity. */
export class Pool implements ConnectionPool {
  readonly #host: ClientHost;
  readonly #options: ResolvedClientOptions;
  readonly #connections = new Map<string, PooledConnection>();
  /** Replaced ones whose calls are still running. */
  readonly #retired = new Set<PooledConnection>();
  readonly #unsubscribe: () => void;
  #closed = false;

  constructor(host: ClientHost, options: ResolvedClientOptions) {
    this.#host = host;
    this.#options = options;
    this.#unsubscribe = host.tls.onChange((material) => this.#follow(material));
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
      this.#retire(connection);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unsubscribe();
    for (const connection of [...this.#connections.values(), ...this.#retired]) connection.destroy();
    this.#connections.clear();
    this.#retired.clear();
  }

  #connectionTo(target: ConnectTarget): PooledConnection {
    if (this.#closed) throw new CallError('UNAVAILABLE', 'the client is closed');
    const known = this.#connections.get(target.key);
    if (known && !known.expired) return known;
    if (known) this.#retire(known);
    const connection = new PooledConnection(target, this.#host, this.#options);
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
    for (const connection of [...this.#connections.values(), ...this.#retired]) connection.revoke(material);
    for (const connection of this.#connections.values()) this.#retire(connection);
    this.#connections.clear();
  }

  #retire(connection: PooledConnection): void {
    this.#retired.add(connection);
    connection.retire(() => this.#retired.delete(connection));
  }
}

class PooledConnection implements Connection {
  readonly target: ConnectTarget;
  readonly #host: ClientHost;
  readonly #options: ResolvedClientOptions;
  readonly #material: TlsMaterial;
  readonly #channel: GrpcChannel;
  #socket: TLSSocket | undefined;
  #peer: PeerIdentity | undefined;
  #revocationKey: string | undefined;
  #attempt: Promise<void> | undefined;
  #lastFailure = 'nobody answers';
  #calls = 0;
  #onIdle: (() => void) | undefined;
  #grace: Timer | undefined;

  constructor(target: ConnectTarget, host: ClientHost, options: ResolvedClientOptions) {
    this.target = target;
    this.#host = host;
    this.#options = options;
    this.#material = host.tls.current();
    this.#channel = new GrpcChannel(target.endpoint, (socket) => this.#handshake(socket), options);
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
    return this.#channel.connected && !this.expired;
  }

  /** The server's certificate has run out since: it must show a new one before it gets another call. */
  get expired(): boolean {
    return this.#peer !== undefined && this.#peer.notAfter <= Date.now();
  }

  /** Made with an identity that has been rotated since. */
  get outdated(): boolean {
    return this.#material !== this.#host.tls.current();
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
    this.#calls++;
    const flight = this.#channel.unary(call, message);
    flight.result.then(this.#ended, this.#ended);
    return flight;
  }

  stream(call: OutgoingCall): ClientStream {
    this.#calls++;
    const stream = this.#channel.stream(call);
    stream.trailers.then(this.#ended, this.#ended);
    return stream;
  }

  /** Takes no more calls; closes when the running ones have ended, at the latest after the grace. */
  retire(onClosed: () => void): void {
    this.#onIdle = () => {
      this.#onIdle = undefined;
      this.#grace?.cancel();
      this.#channel.close();
      onClosed();
    };
    this.#grace = this.#host.clock.after(this.#options.rotationGraceMs, () => {
      this.#onIdle?.();
      this.destroy();
    });
    this.#closeIfIdle();
  }

  /** Ends the connection at once when the server's certificate has been revoked. */
  revoke(material: TlsMaterial): void {
    if (this.#revocationKey === undefined || !isRevoked(material, this.#revocationKey)) return;
    this.#host.events.emit('connection-closed-by-policy', {
      peer: this.peer.id,
      reason: 'revoked',
      detail: `serial ${this.peer.serial}`,
    });
    this.destroy();
  }

  destroy(): void {
    this.#grace?.cancel();
    this.#channel.close();
    this.#socket?.destroy();
  }

  readonly #ended = (): void => {
    this.#calls--;
    if (this.#onIdle) this.#closeIfIdle();
  };

  /** Not in this turn of the event loop: whoever was just handed the connection has yet to begin its call. */
  #closeIfIdle(): void {
    setImmediate(() => {
      if (this.#calls === 0) this.#onIdle?.();
    });
  }

  async #connect(): Promise<void> {
    if (await this.#channel.connect(Date.now() + this.#options.connectTimeoutMs + LAST_WORD_MS)) return;
    throw new CallError('UNAVAILABLE', `${this.#address}: ${this.#lastFailure}`);
  }

  get #address(): string {
    const { host, port } = this.target.endpoint;
    return `${host}:${port}`;
  }

  async #handshake(tcp: Socket): Promise<Socket> {
    try {
      const { socket, peer, revocationKey } = await handshake(tcp, {
        target: this.target,
        material: this.#material,
        protocols: ['h2'],
        timeoutMs: this.#options.connectTimeoutMs,
      });
      this.#socket = socket;
      this.#peer = peer;
      this.#revocationKey = revocationKey;
      return socket;
    } catch (error) {
      this.#refused(error);
      throw error;
    }
  }

  #refused(error: unknown): void {
    if (!(error instanceof HandshakeRefusedError)) return;
    this.#lastFailure = `${error.reason}: ${error.message}`;
    this.#host.events.emit('server-identity-refused', {
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
