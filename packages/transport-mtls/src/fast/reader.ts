import {
  byteAt,
  ErrorCode,
  Flag,
  FRAME_HEADER_BYTES,
  FrameType,
  MAX_FRAME_BYTES,
  MAX_GOAWAY_BYTES,
  MAX_HEADER_BLOCK_BYTES,
  MAX_SETTINGS,
  PREFACE,
  ProfileViolation,
  uint32At,
} from './frames.js';

/** Takes what the reader found. Bytes are valid during the call only, except those of DATA. May throw ProfileViolation. */
export interface FrameSink {
  /** A DATA frame begins; its payload follows in pieces, the last one with `done`. */
  onDataFrame(stream: number, length: number, endStream: boolean): void;
  onData(chunk: Buffer, start: number, end: number, done: boolean): void;
  onHeaders(stream: number, block: Buffer, start: number, end: number, endStream: boolean): void;
  onReset(stream: number, code: number): void;
  onSettings(payload: Buffer, start: number, end: number): void;
  onSettingsAck(): void;
  onPing(payload: Buffer, start: number, ack: boolean): void;
  onGoaway(lastStream: number, code: number): void;
  onWindowUpdate(stream: number, increment: number): void;
}

const NOTHING = Buffer.alloc(0);

/**
 * Cuts what arrives into frames, however it is split (RFC 9113 §4.1). A frame's header is judged before a byte of its
 * payload is kept; payloads of DATA are handed on as they come, all others are small and handed on whole.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  #prefaceLeft: number;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerFilled = 0;
  /** Whether a frame's header was read and its payload was not. */
  #inFrame = false;
  #type = 0;
  #flags = 0;
  #stream = 0;
  /** Bytes of the payload still to come. */
  #left = 0;
  /** Payload of a frame that is split between chunks. */
  #payload: Buffer | undefined;
  #stopped = false;

  /** `expectPreface`: the peer is a client, and says the preface first. */
  constructor(sink: FrameSink, expectPreface: boolean) {
    this.#sink = sink;
    this.#prefaceLeft = expectPreface ? PREFACE.length : 0;
  }

  /** Takes the next bytes; keeps no reference to them unless the sink does. Throws ProfileViolation. */
  push(chunk: Buffer): void {
    let at = this.#prefaceLeft > 0 ? this.#readPreface(chunk) : 0;
    while (at < chunk.length && !this.#stopped) {
      if (!this.#inFrame) at = this.#readHeader(chunk, at);
      else if (this.#type === FrameType.DATA) at = this.#readData(chunk, at);
      else at = this.#readPayload(chunk, at);
    }
  }

  /** Nothing that follows is looked at, not even the rest of the current chunk. */
  stop(): void {
    this.#stopped = true;
    this.#payload = undefined;
  }

  #readPreface(chunk: Buffer): number {
    const offset = PREFACE.length - this.#prefaceLeft;
    const length = Math.min(this.#prefaceLeft, chunk.length);
    if (PREFACE.compare(chunk, 0, length, offset, offset + length) !== 0) {
      throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'no connection preface');
    }
    this.#prefaceLeft -= length;
    return length;
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#headerFilled === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
      this.#begin(chunk, at);
      return at + FRAME_HEADER_BYTES;
    }
    const length = Math.min(FRAME_HEADER_BYTES - this.#headerFilled, chunk.length - at);
    chunk.copy(this.#header, this.#headerFilled, at, at + length);
    this.#headerFilled += length;
    if (this.#headerFilled === FRAME_HEADER_BYTES) {
      this.#headerFilled = 0;
      this.#begin(this.#header, 0);
    }
    return at + length;
  }

  #begin(bytes: Buffer, at: number): void {
    const length = (byteAt(bytes, at) << 16) | (byteAt(bytes, at + 1) << 8) | byteAt(bytes, at + 2);
    this.#type = byteAt(bytes, at + 3);
    this.#flags = byteAt(bytes, at + 4);
    const stream = uint32At(bytes, at + 5);
    // The reserved bit means nothing (RFC 9113 §4.1); those of the profile leave it zero.
    if (stream > 0x7fff_ffff) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'the reserved bit is set');
    this.#stream = stream;
    requireFrame(this.#type, this.#flags, stream, length);
    this.#left = length;
    this.#inFrame = true;
    if (this.#type === FrameType.DATA) this.#sink.onDataFrame(stream, length, (this.#flags & Flag.END_STREAM) !== 0);
    if (length > 0) return;
    this.#inFrame = false;
    if (this.#type === FrameType.DATA) this.#sink.onData(NOTHING, 0, 0, true);
    else this.#deliver(NOTHING, 0, 0);
  }

  #readData(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#left);
    this.#left -= end - at;
    const done = this.#left === 0;
    if (done) this.#inFrame = false;
    this.#sink.onData(chunk, at, end, done);
    return end;
  }

  #readPayload(chunk: Buffer, at: number): number {
    const available = chunk.length - at;
    if (!this.#payload && available >= this.#left) {
      const end = at + this.#left;
      this.#inFrame = false;
      this.#deliver(chunk, at, end);
      return end;
    }
    // Its length was checked: nothing larger than MAX_HEADER_BLOCK_BYTES comes here, and one frame at a time.
    this.#payload ??= Buffer.allocUnsafeSlow(this.#left);
    const payload = this.#payload;
    const length = Math.min(this.#left, available);
    chunk.copy(payload, payload.length - this.#left, at, at + length);
    this.#left -= length;
    if (this.#left === 0) {
      this.#payload = undefined;
      this.#inFrame = false;
      this.#deliver(payload, 0, payload.length);
    }
    return at + length;
  }

  #deliver(bytes: Buffer, start: number, end: number): void {
    const ack = (this.#flags & Flag.ACK) !== 0;
    switch (this.#type) {
      case FrameType.HEADERS:
        this.#sink.onHeaders(this.#stream, bytes, start, end, (this.#flags & Flag.END_STREAM) !== 0);
        return;
      case FrameType.RST_STREAM:
        this.#sink.onReset(this.#stream, uint32At(bytes, start));
        return;
      case FrameType.SETTINGS:
        ack ? this.#sink.onSettingsAck() : this.#sink.onSettings(bytes, start, end);
        return;
      case FrameType.PING:
        this.#sink.onPing(bytes, start, ack);
        return;
      case FrameType.GOAWAY:
        this.#sink.onGoaway(uint32At(bytes, start) & 0x7fff_ffff, uint32At(bytes, start + 4));
        return;
      default:
        this.#sink.onWindowUpdate(this.#stream, uint32At(bytes, start) & 0x7fff_ffff);
        return;
    }
  }
}

/** What can be said of a frame by its header alone. Sizes are judged before memory is taken for them. */
function requireFrame(type: number, flags: number, stream: number, length: number): void {
  switch (type) {
    case FrameType.DATA:
      requireFlags(flags, Flag.END_STREAM);
      requireStream(stream);
      requireSize(length <= MAX_FRAME_BYTES);
      return;
    case FrameType.HEADERS:
      // In one frame: no CONTINUATION (CVE-2024-27316), no padding, no priority.
      requireFlags(flags, Flag.END_HEADERS | Flag.END_STREAM);
      if ((flags & Flag.END_HEADERS) === 0) {
        throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'HEADERS without END_HEADERS');
      }
      requireStream(stream);
      requireSize(length <= MAX_HEADER_BLOCK_BYTES);
      return;
    case FrameType.RST_STREAM:
      requireFlags(flags, 0);
      requireStream(stream);
      requireSize(length === 4);
      return;
    case FrameType.SETTINGS:
      requireFlags(flags, Flag.ACK);
      requireConnection(stream);
      requireSize(flags === 0 ? length % 6 === 0 && length <= 6 * MAX_SETTINGS : length === 0);
      return;
    case FrameType.PING:
      requireFlags(flags, Flag.ACK);
      requireConnection(stream);
      requireSize(length === 8);
      return;
    case FrameType.GOAWAY:
      requireFlags(flags, 0);
      requireConnection(stream);
      requireSize(length >= 8 && length <= MAX_GOAWAY_BYTES);
      return;
    case FrameType.WINDOW_UPDATE:
      requireFlags(flags, 0);
      requireSize(length === 4);
      return;
    default:
      throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, `a frame of type 0x${type.toString(16)}`);
  }
}

function requireFlags(flags: number, allowed: number): void {
  if ((flags & ~allowed) !== 0) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'a flag outside of the profile');
}

function requireStream(stream: number): void {
  if (stream === 0) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'a frame of a stream on stream 0');
}

function requireConnection(stream: number): void {
  if (stream !== 0) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'a frame of the connection on a stream');
}

function requireSize(fits: boolean): void {
  if (!fits) throw new ProfileViolation(ErrorCode.FRAME_SIZE_ERROR, 'a frame of the wrong size');
}
