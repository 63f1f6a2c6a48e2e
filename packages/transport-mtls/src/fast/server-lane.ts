import type { TLSSocket } from 'node:tls';
import {
  CallError,
  type CallStatus,
  type EventSink,
  type IncomingCall,
  type Metadata,
  type PeerIdentity,
  type ServedMethod,
  Status,
} from '@sallyport/core/spi';
import type { AcceptedPeer, LaneConnection, LaneHost, MakeServerLane, ServerLane } from '../lane.js';
import { MessageQueue } from '../message-queue.js';
import type { ResolvedServerLimits } from '../server-options.js';
import {
  appendMetadata,
  encodeTrailers,
  RESPONSE_HEADERS,
  type RequestHead,
  readRequest,
  toMetadata,
} from './call-headers.js';
import { FastConnection } from './connection.js';
import { DeadlineWheel } from './deadline-wheel.js';
import { ErrorCode, ProfileViolation, STREAM_WINDOW_BYTES } from './frames.js';
import { BlockCache, encodeFields } from './headers.js';
import type { MessageProblem } from './messages.js';
import { FAST_PROTOCOL } from './protocol.js';
import { FastStream } from './stream.js';

/** gRPC over a strict profile of HTTP/2 (docs/spec/fast-lane.md): for peers that run the SDK too. */
export const fastServerLane: MakeServerLane = (host, limits) => new FastServerLane(host, limits);

/** Handlers of calls that were cancelled may still run; so many times the calls under way are let run at once. */
const RUNNING_PER_CALL = 2;

const HEADERS = encodeFields(RESPONSE_HEADERS);
const TRAILERS_OK = encodeTrailers({ code: Status.OK, message: '' }, true);

class FastServerLane implements ServerLane {
  readonly protocol = FAST_PROTOCOL;
  readonly events: EventSink;
  readonly limits: ResolvedServerLimits;
  readonly methods: ReadonlyMap<string, ServedMethod>;
  readonly wheel = new DeadlineWheel();
  readonly #connections = new Set<ServerConnection>();

  constructor({ methods, events }: LaneHost, limits: ResolvedServerLimits) {
    this.events = events;
    this.limits = limits;
    this.methods = new Map(methods.map((method) => [method.path, method]));
  }

  accept(socket: TLSSocket, peer: AcceptedPeer): LaneConnection {
    const connection = new ServerConnection(socket, peer, this);
    this.#connections.add(connection);
    return {
      drain: (graceMs) => connection.drain(graceMs),
      release: () => {
        this.#connections.delete(connection);
        connection.destroy();
      },
    };
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy();
    this.#connections.clear();
  }
}

class ServerConnection extends FastConnection {
  readonly lane: FastServerLane;
  readonly peer: AcceptedPeer;
  /** Handlers that have not come to an end, those of cancelled calls among them. */
  running = 0;
  /** Calls that came after the last GOAWAY. */
  #unseen = 0;
  readonly #requests = new BlockCache(readRequest);

  constructor(socket: TLSSocket, peer: AcceptedPeer, lane: FastServerLane) {
    const { limits, events, wheel } = lane;
    super(socket, true, {
      ...limits,
      settingsTimeoutMs: limits.handshakeTimeoutMs,
      idleGraceMs: limits.maxConnectionAgeGraceMs,
      wheel,
      onViolation: ({ code, message }) => {
        if (code === ErrorCode.ENHANCE_YOUR_CALM) peer.guard.report();
        events.emit('connection-closed-by-policy', { peer: peer.identity.id, reason: 'abuse', detail: message });
      },
    });
    this.lane = lane;
    this.peer = peer;
  }

  get canSend(): boolean {
    return !this.over;
  }

  sendHeaders(stream: number, block: Buffer): void {
    this.writer.headers(stream, block, false);
  }

  /** The largest header block that the peer takes. */
  get maxBlockBytes(): number {
    return this.peerMaxFrame;
  }

  protected override hasBeen(stream: number): boolean {
    // After the last GOAWAY frames for calls that nobody looked at may follow.
    return (stream & 1) === 1 && (this.refusing || stream <= this.lastPeerStream);
  }

  protected override onOpening(id: number, block: Buffer, start: number, end: number, endStream: boolean): void {
    // RFC 9113 §5.1.1: odd and ascending. Requests have no trailers, so HEADERS for a known stream are none of them.
    if ((id & 1) === 0 || id <= this.lastPeerStream) {
      throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'HEADERS on a stream that cannot be opened');
    }
    const { maxConcurrentCalls } = this.lane.limits;
    // After the last GOAWAY the peer knows that nobody looks at it (RFC 9113 §6.8); until it has come, it makes the calls it may.
    if (this.refusing) {
      if (++this.#unseen > maxConcurrentCalls) this.spend(1, 'calls after GOAWAY');
      if (!endStream) this.late.expect(id, STREAM_WINDOW_BYTES);
      return;
    }
    this.lastPeerStream = id;
    const head = this.#requests.get(block, start, end);
    const isOverLimit = this.streams.size >= maxConcurrentCalls;
    if (isOverLimit || this.running >= RUNNING_PER_CALL * maxConcurrentCalls) {
      // A caller knows how many calls it has under way, but not whose handlers go on after their calls have ended.
      if (isOverLimit) this.spend(1, 'calls over the limit');
      else this.peer.guard.call(end - start);
      this.writer.reset(id, ErrorCode.REFUSED_STREAM);
      if (!endStream) this.late.expect(id, STREAM_WINDOW_BYTES);
      return;
    }
    const call = new FastIncomingCall(this, id, head);
    call.sendWindow = this.peerInitialWindow;
    this.streams.set(id, call);
    call.begin(this.lane.methods.get(head.path), end - start);
    if (endStream && this.streams.has(id)) {
      call.remoteEnded = true;
      call.onEnd();
    }
  }

  protected override onPeerLeaves(): void {}
  protected override onLimits(): void {}

  protected override onIgnored(bytes: number): void {
    this.peer.guard.message(bytes);
  }

  protected override onOver(): void {}
}

class FastIncomingCall extends FastStream implements IncomingCall {
  declare readonly connection: ServerConnection;
  readonly deadlineAt: number;
  readonly #head: RequestHead;
  #method: ServedMethod | undefined;
  #metadata: Metadata | undefined;
  /** The one request of a method that takes one. */
  #request: Buffer | undefined;
  #requests: MessageQueue<Buffer> | undefined;
  #onCancelled: (() => void) | undefined;
  #onSent: (() => void) | undefined;
  /** The handler runs. */
  #running = false;
  #headersSent = false;
  #finished = false;
  #cancelled = false;

  constructor(connection: ServerConnection, id: number, head: RequestHead) {
    super(connection);
    this.id = id;
    this.headersSeen = true;
    this.#head = head;
    this.deadlineAt = head.timeoutMs === Infinity ? Infinity : Date.now() + head.timeoutMs;
  }

  get path(): string {
    return this.#head.path;
  }

  get peer(): PeerIdentity {
    return this.connection.peer.identity;
  }

  get metadata(): Metadata {
    this.#metadata ??= toMetadata(this.#head.custom);
    return this.#metadata;
  }

  /** Judges the headers, and starts the handlers of streams. */
  begin(method: ServedMethod | undefined, blockBytes: number): void {
    const { lane, peer, wheel } = this.connection;
    const { customBytes, custom, encoding } = this.#head;
    const { maxMetadataBytes, maxMetadataEntries, unaryDeadlineMs } = lane.limits;
    peer.guard.call(blockBytes);
    if (!method) {
      this.#refuse(Status.UNIMPLEMENTED, 'this server does not know the method');
      return;
    }
    // Before its message is read: whoever is refused fills no memory.
    const refused = method.refusal(peer.identity);
    if (refused) {
      this.#refuse(refused.code, refused.message);
      return;
    }
    if (encoding !== undefined) {
      this.#refuse(Status.UNIMPLEMENTED, 'compressed messages are not taken here');
      return;
    }
    if (customBytes > maxMetadataBytes || custom.length / 2 > maxMetadataEntries) {
      lane.events.emit('call-rejected', {
        peer: peer.identity.id,
        method: method.path.slice(1),
        status: 'RESOURCE_EXHAUSTED',
        detail: 'too much metadata',
      });
      this.#refuse(Status.RESOURCE_EXHAUSTED, 'too much metadata');
      return;
    }
    this.#method = method;
    if (this.deadlineAt !== Infinity) wheel.add(this, this.deadlineAt);
    // A request that never becomes whole would keep its place for ever.
    else if (!method.requestStream) wheel.add(this, Date.now() + unaryDeadlineMs);
    if (method.requestStream) this.#serve(method, undefined);
  }

  override onHeaders(): void {
    throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'a request has no trailers');
  }

  override onMessage(message: Buffer): void {
    if (!this.#method || this.#finished || this.#cancelled) {
      this.connection.ignoreMessage(message);
      return;
    }
    this.connection.countMessage();
    if (this.#method.requestStream) {
      this.#queueUp(message);
    } else if (this.#request) {
      this.#refuse(Status.INVALID_ARGUMENT, 'more than one request');
    } else {
      this.connection.peer.guard.message(message.length);
      this.#request = this.connection.isLastFrame ? message : this.#kept(message);
    }
  }

  override onMessageProblem(problem: MessageProblem): void {
    if (problem === 'compressed')
      this.#refuse(Status.INTERNAL, 'a message is compressed, and its headers do not say how');
    else this.#refuse(Status.RESOURCE_EXHAUSTED, 'a message is larger than this server takes');
  }

  override onEnd(): void {
    const method = this.#method;
    if (!method || this.#finished) return;
    if (this.#requests) {
      this.#requests.end(undefined);
      return;
    }
    const request = this.#request;
    this.#request = undefined;
    if (!request) {
      this.#refuse(Status.INVALID_ARGUMENT, 'the call ended without a request');
      return;
    }
    if (this.queuedBytes > 0) this.connection.releaseHeld(this, request);
    if (this.deadlineAt === Infinity) this.connection.wheel.remove(this);
    this.#serve(method, request);
  }

  override onReset(): void {
    this.#cancel();
  }

  override onLost(): void {
    this.#cancel();
  }

  override onDrained(): void {
    const onSent = this.#onSent;
    this.#onSent = undefined;
    onSent?.();
  }

  override onDeadline(): void {
    // The answer is given and the peer does not take it: whatever it wanted, it has had its time.
    if (this.#finished) {
      this.connection.reset(this, ErrorCode.CANCEL);
      return;
    }
    const wasRunning = this.#running;
    this.#sendStatus({ code: Status.DEADLINE_EXCEEDED, message: 'the deadline passed' });
    if (wasRunning) this.#cancel();
  }

  onCancelled(listener: () => void): void {
    this.#onCancelled = listener;
  }

  messages(): AsyncIterable<Uint8Array> {
    return this.#requests as MessageQueue<Buffer>;
  }

  sendHeaders(headers: Metadata): void {
    if (this.#headersSent || this.#isOver) return;
    const fields = [...RESPONSE_HEADERS];
    appendMetadata(fields, headers);
    this.#headersSent = true;
    const block = encodeFields(fields);
    this.connection.peer.guard.sent(block.length);
    this.connection.sendHeaders(this.id, block);
  }

  send(message: Uint8Array): Promise<void> | undefined {
    if (this.#isOver) return undefined;
    this.#requireRoom(message);
    this.#requireHeaders();
    this.connection.peer.guard.sent(message.length);
    if (this.connection.send(this, message, false)) return undefined;
    return new Promise((resolve) => {
      this.#onSent = resolve;
    });
  }

  reply(message: Uint8Array, trailers: Metadata | undefined): void {
    if (this.#isOver) {
      this.#ended();
      return;
    }
    this.#requireRoom(message);
    const block = trailers ? this.#trailersOf({ code: Status.OK, message: '', trailers }) : TRAILERS_OK;
    this.#finished = true;
    this.#requireHeaders();
    this.connection.countCall();
    this.connection.peer.guard.sent(message.length + block.length);
    this.connection.send(this, message, false);
    this.connection.end(this, block);
    this.#lingerAtMost();
    this.#ended();
  }

  finish(status: CallStatus): void {
    if (!this.#isOver) this.#sendStatus(status);
    this.#ended();
  }

  get #isOver(): boolean {
    return this.#finished || this.#cancelled || !this.connection.canSend;
  }

  #serve(method: ServedMethod, request: Buffer | undefined): void {
    this.#running = true;
    this.connection.running++;
    if (method.requestStream) {
      this.#requests = new MessageQueue((message) => this.connection.releaseHeld(this, message));
    }
    method.serve(this, request);
  }

  #queueUp(message: Buffer): void {
    const queue = this.#requests as MessageQueue<Buffer>;
    this.connection.peer.guard.message(message.length);
    if (queue.isAwaited) {
      queue.push(message);
      return;
    }
    queue.push(this.#kept(message));
  }

  /** A message that nobody takes yet; it counts for what the connection may hold. */
  #kept(message: Buffer): Buffer {
    this.connection.hold(this, message);
    // A small message would keep the whole chunk that it came in.
    return message.length * 2 < message.buffer.byteLength ? Buffer.from(message) : message;
  }

  /** Ends a call that no handler has seen, or whose handler broke off by what the peer sent. */
  #refuse(code: CallStatus['code'], message: string): void {
    if (this.#isOver) return;
    this.#sendStatus({ code, message });
    if (this.#running) this.#cancel();
  }

  #sendStatus(status: CallStatus): void {
    const block = this.#trailersOf(status);
    this.#finished = true;
    this.connection.peer.guard.sent(block.length);
    this.connection.end(this, block);
    this.#lingerAtMost();
  }

  #trailersOf(status: CallStatus): Buffer {
    const block = encodeTrailers(status, this.#headersSent || status.code === Status.OK);
    if (status.code === Status.OK) this.#requireHeaders();
    if (block.length <= this.connection.maxBlockBytes) return block;
    return encodeTrailers({ code: status.code, message: 'the status does not fit into a frame' }, this.#headersSent);
  }

  #requireHeaders(): void {
    if (this.#headersSent) return;
    this.#headersSent = true;
    this.connection.sendHeaders(this.id, HEADERS);
  }

  #requireRoom({ length }: Uint8Array): void {
    if (length > this.connection.maxMessageBytes) {
      throw new CallError('RESOURCE_EXHAUSTED', 'the message is larger than this server may send');
    }
    if (!this.connection.hasRoomFor(length)) {
      throw new CallError('RESOURCE_EXHAUSTED', 'the caller leaves too many answers unread');
    }
  }

  /** An answer that nobody takes is kept no longer than a call may last, also one whose deadline has passed already. */
  #lingerAtMost(): void {
    if (this.outgoing && this.nextTimed === undefined) {
      this.connection.wheel.add(this, Date.now() + this.connection.lane.limits.unaryDeadlineMs);
    }
  }

  #cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#requests?.end(new CallError('CANCELLED', 'the caller cancelled the call'));
    this.onDrained();
    if (this.#running) this.#onCancelled?.();
  }

  /** The handler is through. */
  #ended(): void {
    if (!this.#running) return;
    this.#running = false;
    this.connection.running--;
  }
}
