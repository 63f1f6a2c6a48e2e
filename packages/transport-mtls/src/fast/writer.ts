import type { Socket } from 'node:net';
import { Flag, FRAME_HEADER_BYTES, FrameType } from './frames.js';
import { MESSAGE_PREFIX_BYTES } from './messages.js';

const SMALL_SLAB_BYTES = 512;
const SLAB_BYTES = 64 * 1024;
/** Larger payloads are not copied: header and payload leave as they are, gathered into one write. */
const MAX_COPIED_BYTES = 8 * 1024;
/** DATA of one stream that follow each other share a frame up to this size, which every peer takes (RFC 9113 §4.2). */
const MAX_SHARED_FRAME_BYTES = 16 * 1024;
/** More is not gathered: the peer works on it while this turn goes on. */
const MAX_GATHERED_BYTES = 128 * 1024;

/**
 * Writes frames into a slab and hands it to the socket when the code that runs has come to its end: one TLS record and one
 * system call for all of its frames.
 */
export class FrameWriter {
  /**
   * Hands over at the end of the turn of the event loop instead: once for whatever the sockets bring that are read in it. What
   * fills the slab leaves before.
   */
  gathersWholeTurns = false;
  readonly #socket: Socket;
  #slab = Buffer.alloc(0);
  /** What is written and not handed over lies between these. */
  #start = 0;
  #end = 0;
  #slabBytes = SMALL_SLAB_BYTES;
  /** The frame that was written last, while it may grow: DATA, all of it in the slab. Its stream is 0 if it may not. */
  #openStream = 0;
  #openAt = 0;
  #scheduled = false;
  #corked = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Bytes that the peer has not taken yet. */
  get unsentBytes(): number {
    return this.#socket.writableLength + this.#end - this.#start;
  }

  /** Any bytes as they are: the preface. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#slab.set(bytes, this.#end);
    this.#end += bytes.length;
    this.#schedule();
  }

  /** `more` follows `block` in the same frame. */
  headers(stream: number, block: Uint8Array, endStream: boolean, more?: Uint8Array): void {
    const length = block.length + (more?.length ?? 0);
    const flags = endStream ? Flag.END_HEADERS | Flag.END_STREAM : Flag.END_HEADERS;
    this.#frame(length, FrameType.HEADERS, flags, stream);
    this.#payload(block, length);
    if (more) this.#payload(more, length);
  }

  /**
   * A DATA frame with the bytes [from, from + length) of a message in its gRPC framing: five bytes of prefix, then the message.
   */
  data(stream: number, message: Uint8Array, from: number, length: number, endStream: boolean): void {
    if (endStream || !this.#grow(stream, length)) {
      this.#frame(length, FrameType.DATA, endStream ? Flag.END_STREAM : 0, stream);
      if (!endStream && length <= MAX_COPIED_BYTES) {
        this.#openStream = stream;
        this.#openAt = this.#end - FRAME_HEADER_BYTES;
      }
    }
    let left = length;
    for (let at = from; at < MESSAGE_PREFIX_BYTES && left > 0; at++, left--) {
      // Compressed flag 0, then the length, big-endian.
      this.#slab[this.#end++] = at === 0 ? 0 : message.length >>> (8 * (4 - at));
    }
    if (left === 0) return;
    const start = Math.max(0, from - MESSAGE_PREFIX_BYTES);
    this.#payload(left === message.length ? message : message.subarray(start, start + left), length);
  }

  /** An empty DATA frame that ends our side of the stream. */
  endStream(stream: number): void {
    this.#frame(0, FrameType.DATA, Flag.END_STREAM, stream);
  }

  reset(stream: number, code: number): void {
    this.#frame(4, FrameType.RST_STREAM, 0, stream);
    this.#uint32(code);
  }

  settings(entries: readonly (readonly [id: number, value: number])[]): void {
    this.#frame(entries.length * 6, FrameType.SETTINGS, 0, 0);
    for (const [id, value] of entries) {
      this.#slab[this.#end++] = id >>> 8;
      this.#slab[this.#end++] = id;
      this.#uint32(value);
    }
  }

  settingsAck(): void {
    this.#frame(0, FrameType.SETTINGS, Flag.ACK, 0);
  }

  ping(payload: Uint8Array, ack: boolean): void {
    this.#frame(8, FrameType.PING, ack ? Flag.ACK : 0, 0);
    this.#slab.set(payload, this.#end);
    this.#end += 8;
  }

  goaway(lastStream: number, code: number): void {
    this.#frame(8, FrameType.GOAWAY, 0, 0);
    this.#uint32(lastStream);
    this.#uint32(code);
  }

  windowUpdate(stream: number, increment: number): void {
    this.#frame(4, FrameType.WINDOW_UPDATE, 0, stream);
    this.#uint32(increment);
  }

  /** Gives the slab back while nobody writes; an idle connection costs little. */
  rest(): void {
    if (this.#start !== this.#end) return;
    this.#slab = Buffer.alloc(0);
    this.#start = 0;
    this.#end = 0;
    this.#slabBytes = SMALL_SLAB_BYTES;
  }

  readonly flush = (): void => {
    this.#scheduled = false;
    this.#handOver();
    this.#uncork();
  };

  #frame(length: number, type: number, flags: number, stream: number): void {
    this.#reserve(FRAME_HEADER_BYTES + (length > MAX_COPIED_BYTES ? MESSAGE_PREFIX_BYTES : length));
    this.#openStream = 0;
    const slab = this.#slab;
    let at = this.#end;
    slab[at++] = length >>> 16;
    slab[at++] = length >>> 8;
    slab[at++] = length;
    slab[at++] = type;
    slab[at++] = flags;
    slab[at++] = stream >>> 24;
    slab[at++] = stream >>> 16;
    slab[at++] = stream >>> 8;
    slab[at++] = stream;
    this.#end = at;
    this.#schedule();
  }

  /** Makes room for more in the last frame; false if it cannot have it. Small messages of a stream cost a header together. */
  #grow(stream: number, more: number): boolean {
    if (this.#openStream !== stream || more > MAX_COPIED_BYTES || this.#end + more > this.#slab.length) return false;
    const length = this.#end - this.#openAt - FRAME_HEADER_BYTES + more;
    if (length > MAX_SHARED_FRAME_BYTES) return false;
    this.#slab[this.#openAt] = length >>> 16;
    this.#slab[this.#openAt + 1] = length >>> 8;
    this.#slab[this.#openAt + 2] = length;
    return true;
  }

  #uint32(value: number): void {
    const slab = this.#slab;
    slab[this.#end++] = value >>> 24;
    slab[this.#end++] = value >>> 16;
    slab[this.#end++] = value >>> 8;
    slab[this.#end++] = value;
  }

  /** Part of the payload of a frame, which is `length` bytes long in all. */
  #payload(part: Uint8Array, length: number): void {
    if (length > MAX_COPIED_BYTES) {
      this.#gather(part);
      return;
    }
    this.#slab.set(part, this.#end);
    this.#end += part.length;
  }

  #gather(payload: Uint8Array): void {
    this.#cork();
    this.#handOver();
    this.#write(payload);
    if (this.#socket.writableLength > MAX_GATHERED_BYTES) this.#uncork();
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#slab.length) return;
    if (this.#start !== this.#end) {
      // A full slab leaves at once: the peer works on it while this turn goes on.
      if (this.#slab.length < SLAB_BYTES) this.#cork();
      this.#handOver();
    }
    // A busy connection gets a larger slab at once, a quiet one is content with a small one.
    this.#slab = Buffer.allocUnsafeSlow(Math.max(this.#slabBytes, bytes));
    this.#slabBytes = Math.min(SLAB_BYTES, this.#slabBytes * 8);
    this.#start = 0;
    this.#end = 0;
  }

  /** What follows leaves in one write, at the end of the turn unless it grows large. */
  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
  }

  #uncork(): void {
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  #handOver(): void {
    if (this.#start === this.#end) return;
    this.#openStream = 0;
    this.#write(this.#slab.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }

  #write(bytes: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (this.gathersWholeTurns) setImmediate(this.flush);
    else process.nextTick(this.flush);
  }
}
