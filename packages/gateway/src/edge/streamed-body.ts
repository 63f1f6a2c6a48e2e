import type { Socket } from 'node:net';
import type { EdgeIncoming } from './edge-server.js';

const streaming = new WeakSet<Socket>();

/**
 * The body is a stream of messages, which has limits of its own: the time of a body does not hold until the returned function
 * is called. Of HTTP/1.1; HTTP/2 has no such time but ours.
 */
export function streamBody(incoming: EdgeIncoming): () => void {
  if ('stream' in incoming) return () => {};
  const { socket } = incoming;
  streaming.add(socket);
  return () => void streaming.delete(socket);
}

/** Whether the request of a connection is such a stream now. */
export function hasStreamedBody(socket: Socket): boolean {
  return streaming.has(socket);
}
