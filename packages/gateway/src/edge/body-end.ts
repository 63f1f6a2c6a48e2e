import type { Http2ServerRequest } from 'node:http2';
import type { Readable } from 'node:stream';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { ProblemError } from '../problem.js';

/** How long after the end of a stream its reset may still arrive, ms. */
const RESET_FOLLOWS_MS = 1;

/**
 * To be waited for between the end of a body and telling a service of it: the end is final there, and half a body would look whole.
 * Clients on node:http2 cancel by a good end of the stream and a reset in the next packet, and Node tells of a reset as of a good end.
 * Rejects with ProblemError 499 when it was reset. Where the length was said, Node itself refuses a body that is shorter.
 */
export async function bodyEnd(body: Readable | Http2ServerRequest): Promise<void> {
  if (!('stream' in body) || body.headers['content-length'] !== undefined) return;
  await sleep(RESET_FOLLOWS_MS);
  await turn();
  const { stream } = body;
  if (stream.rstCode === 0 && !stream.aborted) return;
  throw new ProblemError({ status: 499, code: 'cancelled', title: 'The client is gone' });
}
