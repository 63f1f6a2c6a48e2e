import type { Socket } from 'node:net';
import {
  type ArrivingMessages,
  CallError,
  type ClientStream,
  Metadata,
  type OutgoingCall,
  Status,
  type UnaryFlight,
  type UnaryResult,
  UnprocessedCallError,
} from '@sallyport/core/spi';
import type { ResolvedClientOptions } from '../client-options.js';
import type { ClientLane } from '../lane.js';
import { MessageQueue } from '../message-queue.js';
import {
  encodeMetadata,
  type ResponseFields,
  readResponse,
  requestFields,
  statusOfReset,
  toCallError,
  toMetadata,
} from './call-headers.js';
import { FastConnection } from './connection.js';
import type { DeadlineWheel } from './deadline-wheel.js';
import { ErrorCode, LARGEST_STREAM_ID, ProfileViolation } from './frames.js';
import { BlockCache, encodeFields } from './headers.js';
import type { MessageProblem } from './messages.js';
import { FastStream } from './stream.js';

/** Calls that wait because the server takes no more at once. */
const MAX_WAITING = 65_536;
/** Methods whose last header block is remembered. */
const MAX_BLOCKS = 256;
/** The metadata of an answer that we read, bytes. */
const MAX_METADATA_BYTES = 64 * 1024;

export interface FastChannelContext {
  readonly options: ResolvedClientOptions;
  readonly wheel: DeadlineWheel;
  /** The server left the profile. */
  readonly onViolation: (detail: string) => void;
  /** The last call that was under way has ended. */
  readonly onIdle: () => void;
}

interface RequestBlock {
  readonly timeoutMs: number;
  readonly block: Buffer;
}

/** One connection of the profile to one instance: calls go out as they come, each on a stream of its own. */
export class FastChannel extends FastConnection implements ClientLane {
  readonly name = 'fast';
  readonly #context: FastChannelContext;
  readonly #responses = new BlockCache(readResponse);
  readonly #blocks = new Map<string, RequestBlock>();
  readonly #waiting = new Set<OutgoingStream>();
  #nextStream = 1;
  #ready: { resolve: () => void; reject: (error: Error) => void } | undefined;

  constructor(socket: Socket, context: FastChannelContext) {
    const { options, wheel, onViolation } = context;
    super(socket, false, {
      maxMessageBytes: options.maxMessageBytes,
      maxMetadataBytes: MAX_METADATA_BYTES,
      maxConcurrentCalls: 0,
      keepaliveIntervalMs: options.keepaliveIntervalMs,
      keepaliveTimeoutMs: options.keepaliveTimeoutMs,
      idleTimeoutMs: Infinity,
      idleGraceMs: 0,
      settingsTimeoutMs: options.connectTimeoutMs,
      wheel,
      onViolation: ({ message }) => onViolation(message),
    });
    this.#context = context;
  }

  /** Resolves when the server has told its limits, the sign that it let us in. */
  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.settingsSeen) resolve();
      else if (this.over) reject(new Error('the server hung up'));
      else this.#ready = { resolve, reject };
    });
  }

  get usable(): boolean {
    return this.settingsSeen && !this.draining;
  }

  override get calls(): number {
    return super.calls + this.#waiting.size;
  }

  unary(call: OutgoingCall, message: Uint8Array): UnaryFlight {
    const flight = new FastUnaryCall(this, call, message);
    this.#begin(flight);
    return flight;
  }

  stream(call: OutgoingCall): ClientStream {
    const stream = new FastClientStream(this, call);
    this.#begin(stream);
    return stream;
  }

  responseFields(block: Buffer, start: number, end: number): ResponseFields {
    return this.#responses.get(block, start, end);
  }

  /** Ends a call by our own decision: deadline, cancellation, or what the server sent. */
  abandon(stream: OutgoingStream): void {
    if (this.#waiting.delete(stream)) this.wheel.remove(stream);
    else this.reset(stream, ErrorCode.CANCEL);
    this.#next();
  }

  override forget(stream: FastStream): void {
    super.forget(stream);
    if (!this.over && this.#waiting.size > 0) this.#next();
    if (this.calls === 0) this.#context.onIdle();
  }

  protected override hasBeen(stream: number): boolean {
    return (stream & 1) === 1 && stream < this.#nextStream;
  }

  protected override onOpening(stream: number, _block: Buffer, start: number, end: number, endStream: boolean): void {
    // A server opens none: push is off.
    if (!this.hasBeen(stream)) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'HEADERS on an idle stream');
    const wasOnItsWay = endStream ? this.late.end(stream) : this.late.take(stream, end - start);
    if (!wasOnItsWay) this.spend(1, 'frames for streams that are over');
  }

  protected override onPeerLeaves(lastStream: number): void {
    for (const stream of [...this.streams.values()]) {
      if (stream.id <= lastStream) continue;
      this.forget(stream);
      stream.onLost('the server is leaving', true);
    }
    this.#failWaiting('the server is leaving');
  }

  protected override onLimits(): void {
    this.#ready?.resolve();
    this.#ready = undefined;
    this.#next();
  }

  protected override onIgnored(): void {}

  protected override onOver(reason: string): void {
    this.#ready?.reject(new Error(reason));
    this.#ready = undefined;
    this.#failWaiting(reason);
  }

  #begin(stream: OutgoingStream): void {
    this.wheel.add(stream, stream.call.deadlineAt);
    if (this.draining) {
      this.#fail(stream, unprocessed('the connection is closing'));
      return;
    }
    if (this.streams.size < this.peerMaxCalls && this.#waiting.size === 0) this.#open(stream);
    else if (this.#waiting.size < MAX_WAITING) this.#waiting.add(stream);
    else this.#fail(stream, new CallError('RESOURCE_EXHAUSTED', 'too many calls wait for this server'));
  }

  #next(): void {
    for (const stream of this.#waiting) {
      if (this.streams.size >= this.peerMaxCalls) return;
      this.#waiting.delete(stream);
      this.#open(stream);
    }
  }

  #open(stream: OutgoingStream): void {
    const { path, metadata, deadlineAt } = stream.call;
    const block = this.#blockOf(path, deadlineAt);
    const custom = metadata && metadata.size > 0 ? metadata.encodedBy(encodeMetadata) : none;
    if (block.length + custom.length > this.peerMaxFrame) {
      this.#fail(stream, new CallError('RESOURCE_EXHAUSTED', 'the metadata is larger than the server takes'));
      return;
    }
    stream.id = this.#nextStream;
    this.#nextStream += 2;
    // Ids are used once: the last one of a connection ends it (RFC 9113 §5.1.1).
    if (this.#nextStream > LARGEST_STREAM_ID) this.draining = true;
    stream.sendWindow = this.peerInitialWindow;
    // Calls come one after the other where sockets are read one after the other, as in a gateway. Somebody alone waits for nothing.
    this.writer.gathersWholeTurns = this.streams.size > 0;
    this.streams.set(stream.id, stream);
    this.writer.headers(stream.id, block, false, custom);
    stream.onOpen();
  }

  #fail(stream: OutgoingStream, error: CallError): void {
    this.wheel.remove(stream);
    stream.fail(error);
  }

  #failWaiting(reason: string): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const stream of waiting) this.#fail(stream, unprocessed(reason));
  }

  /** Apart from their metadata, calls of a method mostly differ in nothing: the block of the last one serves again. */
  #blockOf(path: string, deadlineAt: number): Buffer {
    const timeoutMs = Math.max(1, deadlineAt - Date.now());
    const known = this.#blocks.get(path);
    if (known?.timeoutMs === timeoutMs) return known.block;
    const block = encodeFields(requestFields(path, timeoutMs));
    if (this.#blocks.size >= MAX_BLOCKS) this.#blocks.clear();
    this.#blocks.set(path, { timeoutMs, block });
    return block;
  }
}

const none = new Uint8Array(0);

/** What unary calls and streams have in common: headers, status, and the ways a call ends. */
abstract class OutgoingStream extends FastStream {
  declare readonly connection: FastChannel;
  readonly call: OutgoingCall;
  protected over = false;

  constructor(connection: FastChannel, call: OutgoingCall) {
    super(connection);
    this.call = call;
  }

  /** The stream exists: send what waits. */
  abstract onOpen(): void;
  protected abstract onInitial(headers: ResponseFields): void;
  /** Status OK. */
  protected abstract onSuccess(trailers: ResponseFields): void;
  protected abstract onFailure(error: CallError): void;

  readonly cancel = (): void => {
    this.#abandon(new CallError('CANCELLED', 'the call was cancelled'));
  };

  /** The call ends with an error that did not come from the wire; its stream is gone. */
  fail(error: CallError): void {
    if (this.over) return;
    this.over = true;
    this.onFailure(error);
  }

  override onDeadline(): void {
    this.#abandon(new CallError('DEADLINE_EXCEEDED', 'the deadline passed'));
  }

  override onHeaders(block: Buffer, start: number, end: number, endStream: boolean): void {
    const fields = this.connection.responseFields(block, start, end);
    this.remoteEnded = endStream;
    if (!this.headersSeen) {
      this.headersSeen = true;
      const problem = problemOf(fields);
      if (problem) {
        this.#abandon(problem);
        return;
      }
      if (!endStream) {
        this.onInitial(fields);
        return;
      }
    } else if (!endStream || fields.httpStatus !== undefined) {
      throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'trailers that do not end their stream');
    }
    if (!this.isBetweenMessages) {
      throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'END_STREAM in the midst of a message');
    }
    this.#conclude(fields);
  }

  override onMessageProblem(problem: MessageProblem): void {
    this.#abandon(
      problem === 'compressed'
        ? new CallError('INTERNAL', 'a message is compressed, and its headers do not say how')
        : new CallError('RESOURCE_EXHAUSTED', 'a message is larger than this client takes'),
    );
  }

  override onEnd(): void {
    this.#abandon(new CallError('INTERNAL', 'the call ended without a status'));
  }

  override onReset(code: number): void {
    const isRefused = code === ErrorCode.REFUSED_STREAM && !this.headersSeen;
    this.fail(
      isRefused
        ? unprocessed('the server refused the call')
        : new CallError(statusOfReset(code), `the server ended the call with code ${code}`),
    );
  }

  override onLost(reason: string, refused: boolean): void {
    this.fail(refused ? unprocessed(reason) : new CallError('UNAVAILABLE', reason));
  }

  #conclude(trailers: ResponseFields): void {
    this.connection.countCall();
    // A caller that has not said everything need not go on (RFC 9113 §8.1).
    if (this.localEnded) this.connection.forget(this);
    else this.connection.abandon(this);
    if (this.over) return;
    this.over = true;
    if (trailers.status === Status.OK) this.onSuccess(trailers);
    else this.onFailure(toCallError(trailers));
  }

  #abandon(error: CallError): void {
    if (this.over) return;
    this.connection.abandon(this);
    this.fail(error);
  }
}

class FastUnaryCall extends OutgoingStream implements UnaryFlight {
  readonly result: Promise<UnaryResult>;
  readonly #message: Uint8Array;
  #resolve: (result: UnaryResult) => void = ignore;
  #reject: (error: CallError) => void = ignore;
  #answer: Buffer | undefined;
  #initial: ResponseFields | undefined;

  constructor(connection: FastChannel, call: OutgoingCall, message: Uint8Array) {
    super(connection, call);
    this.#message = message;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  override onOpen(): void {
    if (this.#message.length > this.connection.maxMessageBytes) {
      this.onMessageTooLarge();
      return;
    }
    this.connection.send(this, this.#message, true);
  }

  override onMessage(message: Buffer): void {
    if (this.over) return;
    this.connection.countMessage();
    if (this.#answer) {
      this.connection.abandon(this);
      this.fail(new CallError('INTERNAL', `${this.call.path.slice(1)} answered more than once`));
    } else {
      // Until the trailers come.
      this.connection.hold(this, message);
      this.#answer = message;
    }
  }

  override onDrained(): void {}

  protected override onInitial(headers: ResponseFields): void {
    this.#initial = headers;
  }

  protected override onSuccess(trailers: ResponseFields): void {
    if (this.#answer) this.#resolve(new FastUnaryResult(this.#answer, this.#initial, trailers));
    else this.#reject(new CallError('INTERNAL', `${this.call.path.slice(1)} ended without an answer`));
  }

  protected override onFailure(error: CallError): void {
    this.#reject(error);
  }

  onMessageTooLarge(): void {
    this.connection.abandon(this);
    this.fail(tooLarge());
  }
}

class FastUnaryResult implements UnaryResult {
  readonly message: Uint8Array;
  readonly #headers: ResponseFields | undefined;
  readonly #trailers: ResponseFields;

  constructor(message: Uint8Array, headers: ResponseFields | undefined, trailers: ResponseFields) {
    this.message = message;
    this.#headers = headers;
    this.#trailers = trailers;
  }

  headers(): Metadata {
    return toMetadata(this.#headers?.custom ?? []);
  }

  trailers(): Metadata {
    return toMetadata(this.#trailers.custom);
  }
}

class FastClientStream extends OutgoingStream implements ClientStream {
  readonly headers: Promise<Metadata>;
  readonly trailers: Promise<Metadata>;
  readonly #messages: MessageQueue<Buffer>;
  /** What was said before the stream could be opened. */
  #early: Uint8Array[] = [];
  #halfClosed = false;
  #onHeaders: (headers: Metadata) => void = ignore;
  #onNoHeaders: (error: Error) => void = ignore;
  #onTrailers: (trailers: Metadata) => void = ignore;
  #onSent: (() => void) | undefined;

  constructor(connection: FastChannel, call: OutgoingCall) {
    super(connection, call);
    this.#messages = new MessageQueue((message) => connection.releaseHeld(this, message));
    this.headers = new Promise((resolve, reject) => {
      this.#onHeaders = resolve;
      this.#onNoHeaders = reject;
    });
    this.headers.catch(ignore);
    this.trailers = new Promise((resolve) => {
      this.#onTrailers = resolve;
    });
  }

  override onOpen(): void {
    const early = this.#early;
    this.#early = [];
    let drained = true;
    for (const message of early) drained = this.connection.send(this, message, false);
    if (this.#halfClosed) this.connection.end(this, undefined);
    if (drained) this.onDrained();
  }

  send(message: Uint8Array): Promise<void> | undefined {
    if (this.over || this.#halfClosed) return undefined;
    if (message.length > this.connection.maxMessageBytes) {
      this.connection.abandon(this);
      this.fail(tooLarge());
      return undefined;
    }
    if (this.id === 0) this.#early.push(message);
    else if (this.connection.send(this, message, false)) return undefined;
    return new Promise((resolve) => {
      this.#onSent = resolve;
    });
  }

  halfClose(): void {
    if (this.over || this.#halfClosed) return;
    this.#halfClosed = true;
    if (this.id !== 0) this.connection.end(this, undefined);
  }

  messages(): ArrivingMessages {
    return this.#messages;
  }

  override onMessage(message: Buffer): void {
    if (this.over) return;
    this.connection.countMessage();
    if (this.#messages.isAwaited) {
      this.#messages.push(message);
      return;
    }
    this.connection.hold(this, message);
    // A small message would keep the whole chunk that it came in.
    this.#messages.push(message.length * 2 < message.buffer.byteLength ? Buffer.from(message) : message);
  }

  override onDrained(): void {
    const onSent = this.#onSent;
    this.#onSent = undefined;
    onSent?.();
  }

  protected override onInitial({ custom }: ResponseFields): void {
    this.#onHeaders(toMetadata(custom));
  }

  protected override onSuccess({ custom }: ResponseFields): void {
    this.#finish(toMetadata(custom), undefined);
  }

  protected override onFailure(error: CallError): void {
    this.#finish(error.metadata ?? new Metadata(), error);
  }

  #finish(trailers: Metadata, error: CallError | undefined): void {
    this.#early = [];
    this.onDrained();
    this.#onNoHeaders(error ?? new CallError('INTERNAL', 'the call ended without headers'));
    this.#onTrailers(trailers);
    this.#messages.end(error);
  }
}

/** Why the headers of an answer cannot be those of a call; undefined: they can. */
function problemOf({ httpStatus, isGrpc, encoding }: ResponseFields): CallError | undefined {
  if (httpStatus !== '200')
    return new CallError('UNKNOWN', `the server answered with HTTP status ${httpStatus ?? 'none'}`);
  if (!isGrpc) return new CallError('UNKNOWN', 'the server answered with something else than gRPC');
  return encoding === undefined ? undefined : new CallError('INTERNAL', 'the answer is compressed');
}

function unprocessed(reason: string): CallError {
  return new UnprocessedCallError('UNAVAILABLE', reason);
}

function tooLarge(): CallError {
  return new CallError('RESOURCE_EXHAUSTED', 'the message is larger than this client may send');
}

function ignore(): void {}
