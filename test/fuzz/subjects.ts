import { parseSpiffeId } from '@sallyport/core';
import type { EventSink, IncomingCall, PeerIdentity, ServedMethod } from '@sallyport/core/spi';
import { DeadlineWheel, FastChannel, FloodGuard, fastServerLane, type HeldMemory } from '@sallyport/transport-mtls/spi';
import { CLIENT_CALLS, LIMITS, METHODS, type Side } from './corpus.js';
import { MemorySocket } from './memory-socket.js';

/** One side of a connection of the fast lane, without TLS and without sockets. */
export interface Subject {
  readonly socket: MemorySocket;
  /** Streams whose handler has run, in order; none at a client. */
  readonly handled: number[];
  /** Security events so far. */
  readonly violations: number;
  /** Memory that messages take on the connection; undefined before its first call. */
  readonly held: HeldMemory | undefined;
  /** What is still held after the connection was over and a turn has passed; undefined: nothing. */
  leftovers(): string | undefined;
}

export function subjectOf(side: Side): Subject {
  return side === 'server' ? new ServerSubject() : new ClientSubject();
}

const MINUTE = 60_000;
const LONG_MS = 60 * MINUTE;

export const serverLimits = {
  maxConnections: 1000,
  maxConnectionsPerPeer: 1000,
  maxConcurrentCalls: LIMITS.calls,
  maxMessageBytes: LIMITS.messageBytes,
  maxMetadataBytes: LIMITS.metadataBytes,
  maxMetadataEntries: 100,
  handshakeTimeoutMs: LONG_MS,
  idleTimeoutMs: LONG_MS,
  maxConnectionAgeMs: LONG_MS,
  maxConnectionAgeGraceMs: LONG_MS,
  keepaliveIntervalMs: LONG_MS,
  keepaliveTimeoutMs: LONG_MS,
  unaryDeadlineMs: LONG_MS,
};

export const clientOptions = {
  defaultDeadlineMs: LONG_MS,
  connectTimeoutMs: LONG_MS,
  maxMessageBytes: LIMITS.messageBytes,
  keepaliveIntervalMs: LONG_MS,
  keepaliveTimeoutMs: LONG_MS,
  maxConnectionAgeMs: LONG_MS,
  rotationGraceMs: LONG_MS,
};

export const identity: PeerIdentity = {
  id: 'spiffe://fuzz.test/svc/peer',
  spiffeId: parseSpiffeId('spiffe://fuzz.test/svc/peer'),
  serial: '01',
  fingerprint: 'AA',
  notAfter: Infinity,
};

/** What a call of the server lane shows of itself beyond the seam. */
interface Place {
  readonly id: number;
  readonly connection: { readonly running: number; readonly calls: number; readonly held: HeldMemory };
}

class ServerSubject implements Subject {
  readonly socket = new MemorySocket();
  readonly handled: number[] = [];
  violations = 0;
  /** Known once a handler has run. */
  connection: Place['connection'] | undefined;
  readonly #release: () => void;

  constructor() {
    const id = `peer-${nextPeer++}`;
    servers.set(id, this);
    const { release } = lane.accept(this.socket.socket, { identity: { ...identity, id }, guard });
    this.#release = () => {
      servers.delete(id);
      release();
    };
    this.socket.once('close', this.#release);
  }

  get held(): HeldMemory | undefined {
    return this.connection?.held;
  }

  leftovers(): string | undefined {
    const { connection } = this;
    if (lane.wheel.size > 0) return `${lane.wheel.size} deadlines`;
    if (!connection) return undefined;
    if (connection.calls > 0) return `${connection.calls} streams`;
    if (connection.running > 0) return `${connection.running} handlers`;
    return leftoverMemory(connection.held);
  }
}

/** One lane for all connections, as in a service; who is meant tells the peer's name. */
const servers = new Map<string, ServerSubject>();
let nextPeer = 0;
const guard = new FloodGuard(LIMITS.messageBytes);
const lane = serverLane();

function serverLane() {
  const methods = [
    method(METHODS.one, (call, request) => call.reply(request, undefined)),
    method(METHODS.feed, (call, request) => {
      for (let i = 0; i < 3; i++) void call.send(request);
      call.finish({ code: 0, message: '' });
    }),
    method(METHODS.many, (call) => void echo(call)),
  ];
  const events = {
    emit(_type: string, { peer }: { peer?: string }) {
      const subject = servers.get(peer ?? '');
      if (subject) subject.violations++;
    },
  };
  const made = fastServerLane({ methods, events: events as EventSink }, serverLimits);
  return made as typeof made & { readonly wheel: DeadlineWheel };
}

function method(path: string, answer: (call: IncomingCall, request: Uint8Array) => void): ServedMethod {
  return {
    path,
    requestStream: path === METHODS.many,
    responseStream: path !== METHODS.one,
    refusal: () => undefined,
    serve(call, request) {
      const { id, connection, peer } = call as IncomingCall & Place;
      const subject = servers.get(peer.id);
      if (!subject) throw new Error('a handler runs after its connection');
      subject.connection = connection;
      subject.handled.push(id);
      answer(call, request ?? Buffer.alloc(0));
    },
  };
}

/** Sends back what comes until the peer has said everything. */
async function echo(call: IncomingCall): Promise<void> {
  try {
    for await (const message of call.messages()) await call.send(message);
    call.finish({ code: 0, message: '' });
  } catch {
    call.finish({ code: 1, message: 'cancelled' });
  }
}

const wheel = new DeadlineWheel();

class ClientSubject implements Subject {
  readonly socket = new MemorySocket();
  readonly handled: number[] = [];
  violations = 0;
  #unsettled = 0;
  readonly #channel: FastChannel;

  constructor() {
    this.#channel = new FastChannel(this.socket.socket, {
      options: clientOptions,
      wheel,
      onViolation: () => void this.violations++,
      onIdle: () => {},
    });
    const deadlineAt = Date.now() + MINUTE;
    for (const [stream, unary] of CLIENT_CALLS) {
      const call = { path: unary ? METHODS.one : METHODS.many, metadata: undefined, deadlineAt };
      if (unary) this.#settles(this.#channel.unary(call, Buffer.from('one')).result);
      else this.#stream(call, stream === 3);
    }
  }

  get held(): HeldMemory {
    return this.#channel.held;
  }

  leftovers(): string | undefined {
    if (wheel.size > 0) return `${wheel.size} deadlines`;
    if (this.#channel.calls > 0) return `${this.#channel.calls} streams`;
    if (this.#unsettled > 0) return `${this.#unsettled} calls that never ended`;
    return leftoverMemory(this.held);
  }

  #stream(call: Parameters<FastChannel['stream']>[0], halfClose: boolean): void {
    const stream = this.#channel.stream(call);
    void stream.send(Buffer.from('many'));
    if (halfClose) stream.halfClose();
    this.#settles(stream.trailers);
    this.#settles(read(stream.messages()));
  }

  #settles(promise: Promise<unknown>): void {
    this.#unsettled++;
    const settle = () => void this.#unsettled--;
    promise.then(settle, settle);
  }
}

function leftoverMemory({ received, unsent }: HeldMemory): string | undefined {
  return received === 0 && unsent === 0 ? undefined : `${received} received and ${unsent} unsent bytes`;
}

async function read(messages: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const _ of messages);
}
