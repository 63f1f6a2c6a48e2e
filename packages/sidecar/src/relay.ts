import type { Socket } from 'node:net';
import type { DirectReader } from './direct-reader.js';

/** One of the two connections that a relay joins. */
export interface RelayEnd {
  /** Keeps half-closed (`allowHalfOpen`). */
  readonly socket: Socket;
  /** Ends it in a way that its peer cannot take for a good end. */
  reset(): void;
  /** Told of every piece that was read from it, bytes. */
  onRead?(bytes: number): void;
  /** What reads it, where that is not its `data` events. It is paused until it is joined. */
  readonly reader?: DirectReader;
}

/** How long nobody may take what is left to be said after the other connection is gone, ms. */
const FLUSH_MS = 30_000;

/**
 * Passes bytes on between two connections until both are over. The end of one direction is passed on alone, so that the other may
 * go on (half close). A connection that breaks off breaks the other one off too: what was cut short must not look whole. At most
 * `maxBufferedBytes` wait in each direction, besides the piece that was read last.
 */
export function relay(a: RelayEnd, b: RelayEnd, maxBufferedBytes: number, flushMs = FLUSH_MS): void {
  pass(a, b.socket, maxBufferedBytes);
  pass(b, a.socket, maxBufferedBytes);
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    // Node goes on after a fatal alert of TLS, and what follows looks like a good end.
    one.socket.once('error', () => {
      one.socket.destroy();
      other.reset();
    });
    one.socket.once('close', () => over(one.socket, other, flushMs));
  }
}

function pass(from: RelayEnd, to: Socket, maxBufferedBytes: number): void {
  const source = from.socket;
  if (from.reader) pour(from, from.reader, to);
  else gatherInto(to, from, maxBufferedBytes);
  to.on('drain', () => source.resume());
  // An end without a word before it is told of whether anybody listens or not.
  if (source.readableEnded) to.end();
  else source.once('end', () => to.end());
}

function gatherInto(to: Socket, from: RelayEnd, maxBufferedBytes: number): void {
  const source = from.socket;
  source.on('data', (bytes: Buffer) => {
    from.onRead?.(bytes.length);
    if (to.destroyed || to.writableEnded) return;
    gather(to);
    to.write(bytes);
    if (to.writableLength >= maxBufferedBytes) source.pause();
  });
}

/** One read, one write: large pieces that nobody copies or holds. The next is read once this one is on its way. */
function pour(from: RelayEnd, reader: DirectReader, to: Socket): void {
  reader.take = (bytes) => {
    from.onRead?.(bytes.length);
    if (to.destroyed || to.writableEnded) return true;
    // A socket on which nothing waits has encrypted or copied the bytes when `write` returns; else they would wait in its queue.
    return to.write(to.writableLength === 0 ? bytes : Buffer.from(bytes));
  };
}

/** Sockets that have something to say at the end of this turn of the event loop. */
const gathering: Socket[] = [];

/** What arrives in one turn leaves in one system call: a peer may cut what it sends into as many records as it likes. */
function gather(to: Socket): void {
  if (to.writableCorked > 0) return;
  to.cork();
  if (gathering.push(to) === 1) setImmediate(release);
}

function release(): void {
  for (const to of gathering.splice(0)) to.uncork();
}

/** `gone` is closed. Whatever it had said in full is still delivered, as long as somebody takes it. */
function over(gone: Socket, other: RelayEnd, flushMs: number): void {
  const { socket } = other;
  if (socket.destroyed) return;
  if (!gone.readableEnded) other.reset();
  else if (socket.writableFinished) socket.destroy();
  else {
    socket.once('finish', () => socket.destroy());
    // Also for a peer that has reset its connection early: Node tells of a good end then, and its writes wait for ever.
    socket.setTimeout(flushMs, () => other.reset());
  }
}
