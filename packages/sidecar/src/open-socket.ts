import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { isEnding } from '@sallyport/transport-mtls/spi';
import type { DirectReader } from './direct-reader.js';

/** Probes of the operating system find a peer that is gone without a word, ms. */
const KEEPALIVE_DELAY_MS = 60_000;

/**
 * An open connection that keeps half-closed; paused, where a reader is given that takes its bytes. Rejects after `timeoutMs`, or when
 * the signal aborts; the message is the code of the operating system.
 */
export function openSocket(
  to: NetConnectOpts,
  timeoutMs: number,
  signal?: AbortSignal,
  reader?: DirectReader,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(new Error('it was given up'));
    const socket = connect({
      ...to,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_DELAY_MS,
      ...(reader ? { onread: reader.onread } : {}),
    });
    if (reader) socket.pause();
    const timer = setTimeout(() => socket.destroy(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
    const giveUp = () => socket.destroy(new Error('it was given up'));
    signal?.addEventListener('abort', giveUp);
    const settle = (error?: NodeJS.ErrnoException): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', giveUp);
      socket.off('connect', settle).off('error', settle);
      // Whoever takes it over learns of its end by `close`.
      socket.on('error', ignore);
      if (error) reject(new Error(error.code ?? error.message));
      else resolve(socket);
    };
    socket.once('connect', settle).once('error', settle);
  });
}

/** Ends it in a way that the other side cannot take for a good end. Unix sockets know no reset: theirs is a close. */
export function resetSocket(socket: Socket): void {
  if (socket.remoteAddress === undefined || isEnding(socket)) socket.destroy();
  else socket.resetAndDestroy();
}

function ignore(): void {}
