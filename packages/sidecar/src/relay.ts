import type { Socket } from 'node:net';

/** One of the two connections that a relay joins. */
export interface RelayEnd {
  /** Keeps half-closed (`allowHalfOpen`). */
  readonly socket: Socket;
  /** Ends it in a way that its peer cannot take for a good end. */
  reset(): void;
  /** Told of every piece that was read from it, bytes. */
  onRead?(bytes: number): void;
}

/**
 * Passes bytes on between two connections until both are over. The end of one direction is passed on alone, so that the other may
 * go on (half close). A connection that breaks off breaks the other one off too: what was cut short must not look whole. At most
 * `maxBufferedBytes` wait in each direction, besides the piece that was read last.
 */
export function relay(a: RelayEnd, b: RelayEnd, maxBufferedBytes: number): void {
  pass(a, b.socket, maxBufferedBytes);
  pass(b, a.socket, maxBufferedBytes);
  a.socket.once('close', () => over(a.socket, b));
  b.socket.once('close', () => over(b.socket, a));
}

function pass(from: RelayEnd, to: Socket, maxBufferedBytes: number): void {
  const source = from.socket;
  source.on('data', (bytes: Buffer) => {
    from.onRead?.(bytes.length);
    if (to.destroyed || to.writableEnded) return;
    gather(to);
    to.write(bytes);
    if (to.writableLength >= maxBufferedBytes) source.pause();
  });
  to.on('drain', () => source.resume());
  // An end without a word before it is told of whether anybody listens or not.
  if (source.readableEnded) to.end();
  else source.once('end', () => to.end());
}

/** What arrives in one turn of the event loop leaves in one system call: TLS hands out a record of 16 KiB at a time. */
function gather(to: Socket): void {
  if (to.writableCorked > 0) return;
  to.cork();
  setImmediate(uncork, to);
}

function uncork(to: Socket): void {
  to.uncork();
}

/** `gone` is closed. Whatever it had said in full is still delivered. */
function over(gone: Socket, other: RelayEnd): void {
  const { socket } = other;
  if (socket.destroyed) return;
  if (!gone.readableEnded) other.reset();
  else if (socket.writableFinished) socket.destroy();
  else socket.once('finish', () => socket.destroy());
}
