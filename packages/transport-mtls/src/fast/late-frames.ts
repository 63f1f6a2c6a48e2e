import { MESSAGE_PREFIX_BYTES } from './messages.js';

/** What a frame counts for that is smaller than a message's prefix: messages are split where a frame or a window ends only. */
const CRUMB_BYTES = 256;
/** So many of them one stream may have on its way, beside its window. */
const CRUMBS = 8;

/**
 * What the peer may still say on streams that we ended, because it cannot know yet: as much as we had granted it, until it ends
 * its side. Of each stream so much and no more, and of the streams that ended last only: a peer that may have so many calls
 * under way has learned of the end of all others.
 */
export class LateFrames {
  readonly #maxStreams: number;
  /** Bytes that may follow, by stream. */
  readonly #left = new Map<number, number>();
  /** The streams in the order of their end; once it is full, the oldest is at #at. */
  readonly #order: number[] = [];
  #at = 0;

  constructor(maxStreams: number) {
    this.#maxStreams = maxStreams;
  }

  /** We ended a stream on which the peer was let say so many bytes more. */
  expect(stream: number, bytes: number): void {
    const oldest = this.#order[this.#at];
    if (oldest !== undefined) this.#left.delete(oldest);
    this.#order[this.#at] = stream;
    this.#at = (this.#at + 1) % this.#maxStreams;
    this.#left.set(stream, bytes + CRUMBS * CRUMB_BYTES);
  }

  /** Whether DATA of so many bytes was to be expected. Nobody who is honest sends an empty frame that ends nothing. */
  takeData(stream: number, length: number, endStream: boolean): boolean {
    if (length === 0) return endStream && this.end(stream);
    return this.take(stream, length) && (!endStream || this.end(stream));
  }

  /** Whether a frame of so many bytes was to be expected. */
  take(stream: number, length: number): boolean {
    const left = this.#left.get(stream);
    if (left === undefined || length > left) return false;
    this.#left.set(stream, left - (length < MESSAGE_PREFIX_BYTES ? CRUMB_BYTES : length));
    return true;
  }

  /** The peer has ended its side too: nothing follows. Whether that was to be expected. */
  end(stream: number): boolean {
    return this.#left.delete(stream);
  }
}
