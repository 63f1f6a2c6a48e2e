import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** As much of a socket as a connection needs, without a system below it. What happens happens when the test says so. */
export class MemorySocket extends EventEmitter {
  writable = true;
  writableLength = 0;
  destroyed = false;
  ended = false;
  /** Kept: everything; otherwise the last write only. */
  readonly #keep: boolean;
  #writes: Uint8Array[] = [];
  #paused = false;

  constructor(keep = false) {
    super();
    this.#keep = keep;
  }

  /** What a connection is given. */
  get socket(): TLSSocket {
    return this as unknown as Socket as TLSSocket;
  }

  /** What was written since it was asked last. */
  take(): Buffer {
    const written = Buffer.concat(this.#writes);
    this.#writes = [];
    return written;
  }

  /** Code of the GOAWAY that was said last; undefined: something else was. */
  get lastWords(): number | undefined {
    const last = this.#writes.at(-1);
    if (!last || last.length < 17) return undefined;
    const bytes = Buffer.from(last.buffer, last.byteOffset + last.length - 17, 17);
    return bytes.readUInt32BE(0) === 0x00_0008_07 ? bytes.readUInt32BE(13) : undefined;
  }

  /** The peer sends bytes. */
  arrive(chunk: Buffer): void {
    this.emit('data', chunk);
  }

  /** Lets what was begun come to its end: the events that a socket emits by itself. */
  settle(): void {
    if (this.ended && !this.destroyed) this.emit('finish');
    this.destroyed = true;
    this.writable = false;
    this.emit('close');
  }

  write(bytes: Uint8Array): boolean {
    if (!this.#keep) this.#writes.length = 0;
    this.#writes.push(bytes);
    return true;
  }

  end(): this {
    this.writable = false;
    this.ended = true;
    return this;
  }

  destroy(): this {
    this.writable = false;
    this.destroyed = true;
    return this;
  }

  cork(): void {}
  uncork(): void {}
  setNoDelay(): void {}

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
  }

  isPaused(): boolean {
    return this.#paused;
  }
}
