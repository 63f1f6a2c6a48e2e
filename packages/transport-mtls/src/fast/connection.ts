import type { Socket } from 'node:net';
import type { DeadlineWheel } from './deadline-wheel.js';
import { consumed, grant, shifted, widened } from './flow-control.js';
import {
  CONNECTION_WINDOW_BYTES,
  DEFAULT_MAX_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  ErrorCode,
  errorName,
  LARGEST_FRAME_BYTES,
  LARGEST_STREAM_ID,
  LARGEST_WINDOW_BYTES,
  MAX_FRAME_BYTES,
  MAX_HEADER_BLOCK_BYTES,
  PREFACE,
  ProfileViolation,
  Setting,
  STREAM_WINDOW_BYTES,
  uint32At,
  WIDE_WINDOW_BYTES,
} from './frames.js';
import { LateFrames } from './late-frames.js';
import { MESSAGE_PREFIX_BYTES } from './messages.js';
import { NuisanceBudget } from './nuisance-budget.js';
import { FrameReader, type FrameSink } from './reader.js';
import type { FastStream } from './stream.js';
import { FrameWriter } from './writer.js';

export interface FastConnectionOptions {
  /** Size of one message either way, bytes. */
  readonly maxMessageBytes: number;
  readonly maxMetadataBytes: number;
  /** Calls under way at once that this side takes; 0: it takes none. */
  readonly maxConcurrentCalls: number;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  /** A connection without calls is drained after it; Infinity: never. */
  readonly idleTimeoutMs: number;
  /** What calls get that were on their way when it was, ms. */
  readonly idleGraceMs: number;
  /** Time until the peer's SETTINGS must be here. */
  readonly settingsTimeoutMs: number;
  readonly wheel: DeadlineWheel;
  /** The peer left the profile, and the connection with it. */
  readonly onViolation: (violation: ProfileViolation) => void;
}

/** Memory that the messages of one connection take, bytes. */
export interface HeldMemory {
  /** Received, and unfinished or unread. */
  readonly received: number;
  /** Given to be sent, and waiting for a window. */
  readonly unsent: number;
  /** What each of the two may come to. */
  readonly most: number;
}

/**
 * DATA waits while so much is on its way to the socket: what the peer does not read stays with whoever produces it. Little,
 * because the socket takes no more before this turn of the event loop ends, and the peer should work while the next is made.
 */
const MAX_UNSENT_BYTES = 256 * 1024;
/** A server reads nothing from a peer that leaves so much of its answers. */
const MAX_UNREAD_BYTES = 2 * 1024 * 1024;
/** Messages held on one connection, unfinished or unread or unsent; beyond it, the call that wants more fails. */
const HELD_MESSAGES = 16;
/** What a held message takes beside its bytes: an empty one fills memory too. */
const HELD_OVERHEAD_BYTES = 128;
/** Streams that a client ended and its server may not know of yet: it makes new calls at once, as fast as it likes. */
const MAX_CANCELLED = 4096;
/** How long a peer may take to read our last words, ms. */
const LAST_WORDS_MS = 1000;
const MAX_PATROL_MS = 5000;

const KEEPALIVE = Buffer.from('keepaliv', 'latin1');
const DRAIN = Buffer.from('drainnow', 'latin1');

/** What frames cost that no call explains. Messages, answers and what they carry earn some of it back. */
const Cost = {
  ping: 2,
  settings: 20,
  windowUpdate: 1,
  /** A call that is reset costs what a call costs; the number of running handlers is bounded apart from it. */
  reset: 1 / 16,
  /** DATA that is empty or tiny; DATA and HEADERS for a stream that is over, if more than could be on its way. */
  idleData: 1,
} as const;

/** The peer answers DATA with WINDOW_UPDATE: so many bytes of ours pay for one. */
const BYTES_PER_POINT = 4096;
/** A DATA frame below it that neither completes a message nor ends a stream carries next to nothing. */
const TINY_BYTES = 256;

/**
 * One connection of the profile, the same for both sides: SETTINGS, flow control, PING, GOAWAY, and the streams. Subclasses
 * open and accept calls.
 */
export abstract class FastConnection implements FrameSink {
  readonly maxMessageBytes: number;
  readonly wheel: DeadlineWheel;
  protected readonly writer: FrameWriter;
  protected readonly streams = new Map<number, FastStream>();
  protected readonly budget = new NuisanceBudget();
  protected readonly late: LateFrames;
  /** Highest stream that the peer has opened. */
  protected lastPeerStream = 0;
  /** What the peer said of itself. */
  protected peerInitialWindow = DEFAULT_WINDOW_BYTES;
  protected peerMaxFrame = DEFAULT_MAX_FRAME_BYTES;
  protected peerMaxCalls = Infinity;
  /** No new calls: one of the sides has said GOAWAY. */
  protected draining = false;
  /** GOAWAY with the last stream was sent. */
  protected refusing = false;
  protected over = false;
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #options: FastConnectionOptions;
  readonly #isServer: boolean;
  readonly #maxHeldBytes: number;
  /** What the peer lets us send on all streams. */
  #sendWindow = DEFAULT_WINDOW_BYTES;
  /** What the peer may still send on all streams. */
  #receiveWindow = CONNECTION_WINDOW_BYTES;
  /** The stream whose DATA frame is arriving, and whether it ends with it. */
  #current: FastStream | undefined;
  #currentEnds = false;
  #currentLength = 0;
  /** It is for a stream that is over, and the peer could not know. */
  #isExcused = false;
  #messages = 0;
  /** Complete messages that nobody has read, and unfinished ones. */
  #heldBytes = 0;
  /** Messages that wait for a window. */
  #unsentBytes = 0;
  /** Streams that have something to send and a window for it, in their order. */
  #ready: FastStream[] = [];
  #settingsSeen = false;
  #heard = true;
  #silentSince = Date.now();
  #pingedAt = 0;
  #idleSince = Date.now();
  readonly #patrol: NodeJS.Timeout;
  /** When it drains: calls that are under way then are lost. */
  #endsAt = Infinity;
  #grace: NodeJS.Timeout | undefined;
  #farewell: NodeJS.Timeout | undefined;

  constructor(socket: Socket, isServer: boolean, options: FastConnectionOptions) {
    this.#socket = socket;
    this.#isServer = isServer;
    this.#options = options;
    this.maxMessageBytes = options.maxMessageBytes;
    this.wheel = options.wheel;
    this.#maxHeldBytes = Math.max(HELD_MESSAGES * options.maxMessageBytes, 64 * STREAM_WINDOW_BYTES);
    this.late = new LateFrames(isServer ? options.maxConcurrentCalls : MAX_CANCELLED);
    this.writer = new FrameWriter(socket);
    this.#reader = new FrameReader(this, isServer);
    const { keepaliveIntervalMs, keepaliveTimeoutMs, idleTimeoutMs, settingsTimeoutMs } = options;
    const patrolMs = Math.min(keepaliveIntervalMs, keepaliveTimeoutMs, idleTimeoutMs, settingsTimeoutMs, MAX_PATROL_MS);
    this.#patrol = setInterval(() => this.#inspect(), Math.max(10, patrolMs));
    this.#patrol.unref();
    // Frames of a turn leave together already; Nagle's algorithm would hold the next ones back for an acknowledgement.
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#onDrain());
    socket.on('end', () => this.#close(ErrorCode.NO_ERROR, 'the peer closed the connection'));
    socket.on('error', ignore);
    socket.once('close', () => this.#lose('the connection was lost'));
    this.#greet();
  }

  /** Calls under way. */
  get calls(): number {
    return this.streams.size;
  }

  get held(): HeldMemory {
    return { received: this.#heldBytes, unsent: this.#unsentBytes, most: this.#maxHeldBytes };
  }

  /** Whether the DATA frame that is arriving is the last one of its stream. */
  get isLastFrame(): boolean {
    return this.#currentEnds;
  }

  get settingsSeen(): boolean {
    return this.#settingsSeen;
  }

  /**
   * Sends a message, or keeps it until the windows allow. True when nothing waits; otherwise `onDrained` follows. Order is kept.
   */
  send(stream: FastStream, message: Uint8Array, endStream: boolean): boolean {
    const bytes = MESSAGE_PREFIX_BYTES + message.length;
    if (
      !stream.outgoing &&
      bytes <= stream.sendWindow &&
      bytes <= this.#sendWindow &&
      bytes <= this.peerMaxFrame &&
      this.writer.unsentBytes < MAX_UNSENT_BYTES
    ) {
      this.#use(stream, bytes);
      this.writer.data(stream.id, message, 0, bytes, endStream);
      if (endStream) stream.localEnded = true;
      return true;
    }
    stream.outgoing ??= [];
    stream.outgoing.push({ message, sent: 0 });
    if (endStream) stream.ending = 'empty';
    this.#unsentBytes += message.length;
    this.#makeReady(stream);
    this.#pump();
    return stream.outgoing === undefined;
  }

  /** Whether another message of that size may wait here for its window. */
  hasRoomFor(bytes: number): boolean {
    return this.#unsentBytes + bytes <= this.#maxHeldBytes;
  }

  /** Ends our side of the stream: with trailers, or with nothing. After what still waits. */
  end(stream: FastStream, trailers: Buffer | undefined): void {
    if (stream.outgoing) stream.ending = trailers ?? 'empty';
    else this.#end(stream, trailers ?? 'empty');
  }

  /** Ends the stream at once; the peer is told, unless it knows. */
  reset(stream: FastStream, code: ErrorCode): void {
    if (this.streams.has(stream.id)) {
      this.writer.reset(stream.id, code);
      this.#excuse(stream);
    }
    this.forget(stream);
  }

  /** The stream is over on both sides. */
  forget(stream: FastStream): void {
    this.wheel.remove(stream);
    if (!this.streams.delete(stream.id)) return;
    for (const { message } of stream.outgoing ?? []) this.#unsentBytes -= message.length;
    this.#heldBytes -= stream.queuedBytes + stream.countedBytes;
    stream.queuedBytes = 0;
    stream.countedBytes = 0;
    if (this.#current === stream) {
      this.#current = undefined;
      this.#isExcused = true;
    }
    // It will not be completed any more, and takes no memory either.
    if (stream.unfinishedBytes > 0) this.onIgnored(stream.unfinishedBytes);
    stream.release();
    if (this.streams.size > 0) return;
    this.#idleSince = Date.now();
    if (this.draining) this.#closeIfDone();
  }

  /** A complete message waits for its reader, or for the end of its call. */
  hold(stream: FastStream, message: Uint8Array): void {
    const bytes = message.length + HELD_OVERHEAD_BYTES;
    stream.queuedBytes += bytes;
    this.#heldBytes += bytes;
  }

  /** The reader took a message that was held. */
  releaseHeld(stream: FastStream, message: Uint8Array): void {
    if (!this.streams.has(stream.id)) return;
    const bytes = message.length + HELD_OVERHEAD_BYTES;
    stream.queuedBytes -= bytes;
    this.#heldBytes -= bytes;
    this.#replenish(stream);
  }

  /** Says GOAWAY, in two steps so that no call that is on its way gets lost (RFC 9113 §6.8); ends the rest after `graceMs`. */
  drain(graceMs: number): void {
    if (this.over) return;
    this.#endWithin(graceMs);
    if (this.refusing || this.#farewell) return;
    this.draining = true;
    this.writer.goaway(LARGEST_STREAM_ID, ErrorCode.NO_ERROR);
    this.writer.ping(DRAIN, false);
    // A peer that does not answer must not be waited for while it has no calls.
    this.#farewell = setTimeout(() => this.#refuseNew(), Math.min(graceMs, LAST_WORDS_MS));
    this.#farewell.unref();
  }

  /** Says goodbye and closes. Running calls are lost. */
  close(): void {
    this.#close(ErrorCode.NO_ERROR, 'the connection was closed');
  }

  /** Ends everything at once, without a word. */
  destroy(): void {
    this.#lose('the connection was closed');
    this.#socket.destroy();
  }

  /** HEADERS for a stream that is not open. */
  protected abstract onOpening(stream: number, block: Buffer, start: number, end: number, endStream: boolean): void;
  /** Whether a stream with that id has existed, so that frames for it may still be on their way. */
  protected abstract hasBeen(stream: number): boolean;
  /** The peer takes calls up to this one, and no new ones. */
  protected abstract onPeerLeaves(lastStream: number): void;
  /** SETTINGS arrived: limits may have changed. */
  protected abstract onLimits(): void;
  /** DATA came that nobody wants any more, from a peer that could not know. */
  protected abstract onIgnored(bytes: number): void;
  protected abstract onOver(reason: string): void;

  onDataFrame(id: number, length: number, endStream: boolean): void {
    this.#requireSettings();
    this.#receiveWindow = consumed(this.#receiveWindow, length);
    const more = grant(this.#receiveWindow, CONNECTION_WINDOW_BYTES, 0);
    if (more > 0) {
      this.#receiveWindow += more;
      this.writer.windowUpdate(0, more);
    }
    const stream = this.streams.get(id);
    this.#current = stream;
    this.#currentEnds = endStream;
    this.#currentLength = length;
    this.#messages = 0;
    this.#isExcused = false;
    if (!stream) {
      this.#requirePast(id);
      this.#isExcused = this.late.takeData(id, length, endStream);
      if (!this.#isExcused) this.spend(Cost.idleData, 'frames for streams that are over');
      return;
    }
    if (stream.remoteEnded) throw new ProfileViolation(ErrorCode.STREAM_CLOSED, 'DATA after END_STREAM');
    if (!stream.headersSeen) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'DATA before HEADERS');
    stream.receiveWindow = consumed(stream.receiveWindow, length);
  }

  onData(chunk: Buffer, start: number, end: number, done: boolean): void {
    const stream = this.#current;
    if (!stream) {
      if (this.#isExcused) this.onIgnored(end - start);
      return;
    }
    if (end > start) {
      stream.receive(chunk, start, end);
      // The stream may have ended with what it was given.
      if (this.#current !== stream) {
        this.onIgnored(end - start);
        return;
      }
      this.#heldBytes += stream.partialBytes - stream.countedBytes;
      stream.countedBytes = stream.partialBytes;
      if (this.#heldBytes > this.#maxHeldBytes) {
        stream.onMessageProblem('too-large');
        return;
      }
      if (!this.#currentEnds) this.#replenish(stream);
    }
    if (!done) return;
    this.#current = undefined;
    if (this.#currentEnds) this.#remoteEnd(stream);
    else if (this.#messages === 0 && this.#currentLength < TINY_BYTES)
      this.spend(Cost.idleData, 'DATA that carries nothing');
  }

  /** A message was completed: it pays for frames around it. */
  countMessage(): void {
    this.#messages++;
    this.budget.earn(1 / 4);
  }

  /** A message was completed that nobody wants any more: it earns nothing, and its frame was not without one. */
  ignoreMessage(message: Uint8Array): void {
    this.#messages++;
    this.onIgnored(message.length);
  }

  /** A call was answered: it pays for a few frames that come with it. */
  countCall(): void {
    this.budget.earn(1);
  }

  onHeaders(id: number, block: Buffer, start: number, end: number, endStream: boolean): void {
    this.#requireSettings();
    const stream = this.streams.get(id);
    if (!stream) {
      this.onOpening(id, block, start, end, endStream);
      return;
    }
    if (stream.remoteEnded) throw new ProfileViolation(ErrorCode.STREAM_CLOSED, 'HEADERS after END_STREAM');
    stream.onHeaders(block, start, end, endStream);
  }

  onReset(id: number, code: number): void {
    this.#requireSettings();
    const stream = this.streams.get(id);
    // A server can end what we began, each call once. Calls are free for whoever makes them.
    if (this.#isServer || !stream) this.spend(Cost.reset, 'RST_STREAM');
    if (!stream) {
      this.#requirePast(id);
      this.late.end(id);
      return;
    }
    this.forget(stream);
    stream.onReset(code);
  }

  onSettings(payload: Buffer, start: number, end: number): void {
    if (this.#settingsSeen) this.spend(Cost.settings, 'SETTINGS');
    this.#settingsSeen = true;
    for (let at = start; at < end; at += 6) this.#apply(payload.readUInt16BE(at), uint32At(payload, at + 2));
    this.writer.settingsAck();
    for (const stream of this.streams.values()) this.#makeReady(stream);
    this.#pump();
    this.onLimits();
  }

  onSettingsAck(): void {
    this.#requireSettings();
    this.spend(Cost.windowUpdate, 'SETTINGS');
  }

  onPing(payload: Buffer, start: number, ack: boolean): void {
    this.#requireSettings();
    if (!ack) {
      this.spend(Cost.ping, 'PING');
      this.writer.ping(payload.subarray(start, start + 8), true);
    } else if (DRAIN.compare(payload, start, start + 8) === 0 && this.draining) {
      this.#refuseNew();
    } else {
      this.spend(Cost.windowUpdate, 'PING');
    }
  }

  onGoaway(lastStream: number, code: number): void {
    this.#requireSettings();
    this.spend(Cost.windowUpdate, 'GOAWAY');
    this.draining = true;
    this.onPeerLeaves(lastStream);
    if (code === ErrorCode.NO_ERROR) this.#closeIfDone();
    else this.#close(ErrorCode.NO_ERROR, `the peer ended the connection: ${errorName(code)}`);
  }

  onWindowUpdate(id: number, increment: number): void {
    this.#requireSettings();
    this.spend(Cost.windowUpdate, 'WINDOW_UPDATE');
    if (id === 0) {
      this.#sendWindow = widened(this.#sendWindow, increment);
    } else {
      const stream = this.streams.get(id);
      if (!stream) {
        this.#requirePast(id);
        return;
      }
      stream.sendWindow = widened(stream.sendWindow, increment);
      this.#makeReady(stream);
    }
    this.#pump();
  }

  /** Throws ProfileViolation when the peer has been a nuisance for too long. */
  protected spend(cost: number, what: string): void {
    if (!this.budget.spend(cost)) throw new ProfileViolation(ErrorCode.ENHANCE_YOUR_CALM, `a flood of ${what}`);
  }

  #greet(): void {
    const { maxConcurrentCalls, maxMetadataBytes } = this.#options;
    if (!this.#isServer) this.writer.raw(PREFACE);
    this.writer.settings([
      [Setting.HEADER_TABLE_SIZE, 0],
      [Setting.ENABLE_PUSH, 0],
      [Setting.MAX_CONCURRENT_STREAMS, maxConcurrentCalls],
      [Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES],
      [Setting.MAX_FRAME_SIZE, MAX_FRAME_BYTES],
      [Setting.MAX_HEADER_LIST_SIZE, maxMetadataBytes],
    ]);
    this.writer.windowUpdate(0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
  }

  #read(chunk: Buffer): void {
    if (this.over) return;
    this.#heard = true;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      // What is no violation is a fault of ours; it costs this connection, never the process.
      this.#violated(
        error instanceof ProfileViolation
          ? error
          : new ProfileViolation(ErrorCode.INTERNAL_ERROR, 'a frame could not be handled'),
      );
      return;
    }
    // Whoever does not read gets no more answers to write: calls wait in its own buffers (CVE-2019-9517). A client never pauses:
    // what it writes is bounded by what it asks, and two sides that wait for each other would wait for ever.
    if (this.#isServer && this.writer.unsentBytes > MAX_UNREAD_BYTES) this.#socket.pause();
  }

  #onDrain(): void {
    this.#heard = true;
    if (this.#socket.isPaused()) this.#socket.resume();
    this.#pump();
  }

  #apply(id: number, value: number): void {
    switch (id) {
      case Setting.ENABLE_PUSH:
        // RFC 9113 §6.5.2: a server never announces 1.
        if (value > 1 || (value === 1 && !this.#isServer)) throw setting('ENABLE_PUSH');
        return;
      case Setting.MAX_CONCURRENT_STREAMS:
        this.peerMaxCalls = value;
        return;
      case Setting.INITIAL_WINDOW_SIZE:
        if (value > LARGEST_WINDOW_BYTES) {
          throw new ProfileViolation(ErrorCode.FLOW_CONTROL_ERROR, 'SETTINGS_INITIAL_WINDOW_SIZE beyond 2^31-1');
        }
        for (const stream of this.streams.values()) {
          stream.sendWindow = shifted(stream.sendWindow, this.peerInitialWindow, value);
        }
        this.peerInitialWindow = value;
        return;
      case Setting.MAX_FRAME_SIZE:
        if (value < DEFAULT_MAX_FRAME_BYTES || value > LARGEST_FRAME_BYTES) throw setting('MAX_FRAME_SIZE');
        this.peerMaxFrame = Math.min(value, MAX_FRAME_BYTES);
        return;
    }
  }

  #requireSettings(): void {
    if (!this.#settingsSeen) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'the first frame is not SETTINGS');
  }

  /** A stream that is not open must be over: frames for it are harmless, at a price. */
  #requirePast(id: number): void {
    if (!this.hasBeen(id)) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'a frame for an idle stream');
  }

  /** Takes DATA from the windows. What the peer grants in return is paid for with it. */
  #use(stream: FastStream, bytes: number): void {
    stream.sendWindow -= bytes;
    this.#sendWindow -= bytes;
    this.budget.earn(bytes / BYTES_PER_POINT);
  }

  /** We end a stream: its peer may say what we had granted it, and that it ends it too, before it knows. */
  #excuse(stream: FastStream): void {
    this.budget.earn(Cost.reset);
    if (stream.remoteEnded || (this.#current === stream && this.#currentEnds)) return;
    this.late.expect(stream.id, stream.receiveWindow + (stream.headersSeen ? 0 : MAX_HEADER_BLOCK_BYTES));
  }

  #remoteEnd(stream: FastStream): void {
    if (!stream.isBetweenMessages) {
      throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'END_STREAM in the midst of a message');
    }
    stream.remoteEnded = true;
    stream.onEnd();
  }

  #replenish(stream: FastStream): void {
    if (stream.remoteEnded) return;
    stream.isWide ||= stream.receiveWindow * 2 <= STREAM_WINDOW_BYTES;
    const isRoomy = stream.isWide && this.#heldBytes * 4 <= this.#maxHeldBytes;
    const more = grant(stream.receiveWindow, isRoomy ? WIDE_WINDOW_BYTES : STREAM_WINDOW_BYTES, stream.queuedBytes);
    if (more === 0) return;
    stream.receiveWindow += more;
    this.writer.windowUpdate(stream.id, more);
  }

  #makeReady(stream: FastStream): void {
    if (stream.isReady || !stream.outgoing || stream.sendWindow <= 0) return;
    stream.isReady = true;
    this.#ready.push(stream);
  }

  /** A frame of each stream in turn, as long as windows and socket take them. */
  #pump(): void {
    while (this.#ready.length > 0 && this.#sendWindow > 0 && this.writer.unsentBytes < MAX_UNSENT_BYTES) {
      const stream = this.#ready.shift() as FastStream;
      stream.isReady = false;
      this.#advance(stream);
    }
  }

  #advance(stream: FastStream): void {
    const { outgoing } = stream;
    const next = outgoing?.[0];
    if (!outgoing || !next) return;
    const left = MESSAGE_PREFIX_BYTES + next.message.length - next.sent;
    const length = Math.min(left, stream.sendWindow, this.#sendWindow, this.peerMaxFrame);
    if (length <= 0) return;
    this.#use(stream, length);
    this.writer.data(stream.id, next.message, next.sent, length, false);
    next.sent += length;
    if (length === left) {
      outgoing.shift();
      this.#unsentBytes -= next.message.length;
    }
    if (outgoing.length > 0) {
      this.#makeReady(stream);
      return;
    }
    stream.outgoing = undefined;
    if (stream.ending) this.#end(stream, stream.ending);
    stream.onDrained();
  }

  #end(stream: FastStream, ending: Buffer | 'empty'): void {
    stream.ending = undefined;
    if (stream.localEnded) return;
    stream.localEnded = true;
    if (ending === 'empty') this.writer.endStream(stream.id);
    else this.writer.headers(stream.id, ending, true);
    if (!this.#isServer) return;
    // The answer is whole; a caller that still speaks is told to stop (RFC 9113 §8.1).
    if (!stream.remoteEnded) this.writer.reset(stream.id, ErrorCode.NO_ERROR);
    this.#excuse(stream);
    this.forget(stream);
  }

  /** Who wants to leave twice leaves when the first of the two times has passed. */
  #endWithin(graceMs: number): void {
    const endsAt = Date.now() + graceMs;
    if (endsAt >= this.#endsAt) return;
    this.#endsAt = endsAt;
    clearTimeout(this.#grace);
    this.#grace = setTimeout(() => this.#close(ErrorCode.NO_ERROR, 'the connection is drained'), graceMs);
    this.#grace.unref();
  }

  #refuseNew(): void {
    if (this.over || this.refusing) return;
    this.refusing = true;
    this.writer.goaway(this.lastPeerStream, ErrorCode.NO_ERROR);
    this.#closeIfDone();
  }

  #closeIfDone(): void {
    const isAgreed = this.refusing || !this.#isServer;
    if (this.draining && isAgreed && this.streams.size === 0)
      this.#close(ErrorCode.NO_ERROR, 'the connection is drained');
  }

  #violated(violation: ProfileViolation): void {
    if (this.over) return;
    this.#close(violation.code, `the peer left the profile: ${violation.message}`);
    this.#options.onViolation(violation);
  }

  #close(code: ErrorCode, reason: string): void {
    if (this.over) return;
    if (!this.refusing || code !== ErrorCode.NO_ERROR) this.writer.goaway(this.lastPeerStream, code);
    this.#lose(reason);
    this.writer.flush();
    const socket = this.#socket;
    if (socket.isPaused()) socket.resume();
    socket.end();
    // A peer that does not read would keep it open.
    const timer = setTimeout(() => socket.destroy(), LAST_WORDS_MS);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
    if (code !== ErrorCode.NO_ERROR) socket.once('finish', () => socket.destroy());
  }

  #lose(reason: string): void {
    if (this.over) return;
    this.over = true;
    this.draining = true;
    clearInterval(this.#patrol);
    clearTimeout(this.#grace);
    clearTimeout(this.#farewell);
    this.#reader.stop();
    this.#ready = [];
    for (const stream of [...this.streams.values()]) {
      this.forget(stream);
      stream.onLost(reason, false);
    }
    this.onOver(reason);
  }

  #inspect(): void {
    const { keepaliveIntervalMs, keepaliveTimeoutMs, idleTimeoutMs, settingsTimeoutMs } = this.#options;
    const now = Date.now();
    this.writer.rest();
    if (this.#heard) {
      this.#heard = false;
      this.#silentSince = now;
      this.#pingedAt = 0;
    }
    if (!this.#settingsSeen && now - this.#idleSince >= settingsTimeoutMs) {
      this.#violated(new ProfileViolation(ErrorCode.SETTINGS_TIMEOUT, 'no SETTINGS in time'));
    } else if (this.#pingedAt > 0) {
      if (now - this.#pingedAt < keepaliveTimeoutMs) return;
      this.#lose('the peer has vanished: keepalive timeout');
      this.#socket.destroy();
    } else if (now - this.#silentSince >= keepaliveIntervalMs) {
      this.#pingedAt = now;
      this.writer.ping(KEEPALIVE, false);
    } else if (this.streams.size === 0 && now - this.#idleSince >= idleTimeoutMs && !this.draining) {
      this.drain(this.#options.idleGraceMs);
    }
  }
}

function setting(name: string): ProfileViolation {
  return new ProfileViolation(ErrorCode.PROTOCOL_ERROR, `a value that SETTINGS_${name} cannot have`);
}

function ignore(): void {}
