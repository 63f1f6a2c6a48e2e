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

  readonly onread: OnReadOpts = {
    buffer: arena,
    callback: (length) => this.take?.(arena.subarray(0, length)) ?? false,
  };
}
