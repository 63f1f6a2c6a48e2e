import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** The TCP socket below a TLS socket that a server accepted. It has no public name, so it may be unknown one day. */
export function tcpOf(socket: TLSSocket): Socket | undefined {
  return (socket as unknown as { readonly _parent?: Socket })._parent;
}

/**
 * Ends the connection in a way that the peer cannot take for a good end: by a TCP reset. Node takes a bare FIN, without the
 * close_notify of TLS, for one.
 *
 * `resetAndDestroy()` of the TCP socket would free what TLS still works on, and crash the process; so the socket is told to reset when
 * TLS lets go of it, as `resetAndDestroy()` itself tells it. Where Node knows that mark no more, it is a bare FIN.
 */
export function reset(socket: TLSSocket): void {
  const tcp = tcpOf(socket) as (Socket & { resetAndClosing?: boolean }) | undefined;
  if (tcp && !isEnding(socket)) tcp.resetAndClosing = true;
  socket.destroy();
}

/**
 * Whether all that was to be said is on its way, and the end behind it. Such a connection cannot be reset: libuv refuses (UV_EINVAL),
 * and Node forgets the descriptor without closing it.
 */
export function isEnding({ writableEnded, writableFinished, writableLength }: Socket): boolean {
  return writableEnded && !writableFinished && writableLength === 0;
}
