import { byteAt, uint32At } from './frames.js';

/** gRPC's Length-Prefixed-Message: one byte that says whether it is compressed, four of length. */
export const MESSAGE_PREFIX_BYTES = 5;

/** What a message is held in at first; grows with what really arrives. */
const FIRST_BYTES = 64 * 1024;

/** Why a message cannot be taken: too large, or compressed. */
export type MessageProblem = 'too-large' | 'compressed';

/** Takes the messages of one stream. */
export interface MessageSink {
  /** The bytes belong to a chunk that may be larger: copy what is kept for long. */
  onMessage(message: Buffer): void;
  onMessageProblem(problem: MessageProblem): void;
}

/**
 * Puts the messages of one stream together from the payloads of DATA frames. A length is a claim: memory is taken for what
 * has arrived, not for what was announced.
 */
export class MessageAssembler {
  readonly #maxBytes: number;
  readonly #prefix = Buffer.alloc(MESSAGE_PREFIX_BYTES);
  #prefixFilled = 0;
  #length = 0;
  #body: Buffer | undefined;
  #filled = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Memory taken for the message that is not complete, bytes. */
  get heldBytes(): number {
    return this.#body?.length ?? 0;
  }

  /** What has arrived of the message that is not complete, bytes. */
  get unfinishedBytes(): number {
    return this.#prefixFilled + this.#filled;
  }

  /** Whether the stream may end here. */
  get isBetweenMessages(): boolean {
    return this.#prefixFilled === 0;
  }

  push(chunk: Buffer, from: number, end: number, sink: MessageSink): void {
    let at = from;
    while (at < end) {
      const whole = this.#wholeEnd(chunk, at, end);
      if (whole > 0) {
        const message = chunk.subarray(at + MESSAGE_PREFIX_BYTES, whole);
        at = whole;
        sink.onMessage(message);
        continue;
      }
      const next =
        this.#prefixFilled < MESSAGE_PREFIX_BYTES ? this.#readPrefix(chunk, at, end) : this.#readBody(chunk, at, end);
      at = next;
      if (this.#prefixFilled < MESSAGE_PREFIX_BYTES) continue;
      const problem = this.#problem();
      if (problem) {
        sink.onMessageProblem(problem);
        return;
      }
      // The whole body lies in this chunk: no copy.
      if (!this.#body && end - at >= this.#length) {
        const message = chunk.subarray(at, at + this.#length);
        at += this.#length;
        this.#prefixFilled = 0;
        sink.onMessage(message);
      } else if (this.#body && this.#filled === this.#length) {
        const message = this.#body.subarray(0, this.#length);
        this.#body = undefined;
        this.#filled = 0;
        this.#prefixFilled = 0;
        sink.onMessage(message);
      }
    }
  }

  /** Where the message that begins here ends, if nothing of it is missing and nothing wrong with it; else 0. */
  #wholeEnd(chunk: Buffer, at: number, end: number): number {
    if (this.#prefixFilled > 0 || end - at < MESSAGE_PREFIX_BYTES || byteAt(chunk, at) !== 0) return 0;
    const length = uint32At(chunk, at + 1);
    return length <= this.#maxBytes && end - at - MESSAGE_PREFIX_BYTES >= length
      ? at + MESSAGE_PREFIX_BYTES + length
      : 0;
  }

  #readPrefix(chunk: Buffer, at: number, end: number): number {
    const length = Math.min(MESSAGE_PREFIX_BYTES - this.#prefixFilled, end - at);
    chunk.copy(this.#prefix, this.#prefixFilled, at, at + length);
    this.#prefixFilled += length;
    if (this.#prefixFilled === MESSAGE_PREFIX_BYTES) this.#length = uint32At(this.#prefix, 1);
    return at + length;
  }

  #readBody(chunk: Buffer, at: number, end: number): number {
    const length = Math.min(this.#length - this.#filled, end - at);
    const body = this.#roomFor(length);
    chunk.copy(body, this.#filled, at, at + length);
    this.#filled += length;
    return at + length;
  }

  #roomFor(more: number): Buffer {
    const needed = this.#filled + more;
    if (this.#body && this.#body.length >= needed) return this.#body;
    const grown = Buffer.allocUnsafeSlow(Math.min(this.#length, Math.max(FIRST_BYTES, needed * 4)));
    this.#body?.copy(grown, 0, 0, this.#filled);
    this.#body = grown;
    return grown;
  }

  #problem(): MessageProblem | undefined {
    if (byteAt(this.#prefix, 0) !== 0) return 'compressed';
    return this.#length > this.#maxBytes ? 'too-large' : undefined;
  }
}
