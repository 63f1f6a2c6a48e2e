import { constants } from 'node:http2';
import type { EdgeIncoming, EdgeOutgoing } from './edge-server.js';

/** Nobody waits any more for the rest of a body: it ends with the answer. */
export function stopReadingAfter(outgoing: EdgeOutgoing, incoming: EdgeIncoming): void {
  if ('stream' in outgoing) {
    // RFC 9113 section 8.1: a complete answer, then RST_STREAM. The response itself tells of its end only after the stream's.
    const { stream } = outgoing;
    stream.once('finish', () => stream.close(constants.NGHTTP2_NO_ERROR));
  } else {
    outgoing.once('finish', () => incoming.destroy());
  }
}
