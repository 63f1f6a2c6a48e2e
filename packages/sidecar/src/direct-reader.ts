import type { OnReadOpts } from 'node:net';

/** As much as one read of loopback brings, and as much as stays in the cache of a core while it is encrypted. */
const READ_BYTES = 256 * 1024;

/** All connections are read into it, one after the other: none has memory of its own for what is not there. */
const arena = Buffer.allocUnsafeSlow(READ_BYTES);

/**
 * Reads a connection that this process opened without its stream: no buffer is allocated for a read, and no object made. For the
 * `onread` of `net.connect`.
 */
export class DirectReader {
  /** Gets the bytes, which are its own until it returns and not longer; false: no more until the socket is resumed. */
  take: ((bytes: Buffer) => boolean) | undefined;

  readonly onread: OnReadOpts;

  /** Reads at most so many bytes at once, and never more than 256 KiB. */
  constructor(maxBytes: number) {
    const buffer = arena.subarray(0, maxBytes);
    this.onread = { buffer, callback: (length) => this.take?.(buffer.subarray(0, length)) ?? false };
  }
}
