import type { EdgeOutgoing } from './edge-server.js';

/** A connection of HTTP/1.1 ends with this answer, and Node says so in it; HTTP/2 has GOAWAY for that. Before its head is written. */
export function endWith(outgoing: EdgeOutgoing): void {
  if (!('stream' in outgoing)) outgoing.shouldKeepAlive = false;
}
