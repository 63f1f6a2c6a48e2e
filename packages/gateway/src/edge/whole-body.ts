import type { Readable } from 'node:stream';
import { badRequest, ProblemError } from '../problem.js';

/**
 * Reads a body to its end, as one piece. What comes is copied together: of a body that is sent byte by byte each piece would
 * take a hundred times its size. Rejects with ProblemError 413 (`body-too-large`), and 400 for a body that breaks off.
 */
export function wholeBody(body: Readable, maxBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let bytes: Buffer | undefined;
    let length = 0;
    const take = (chunk: Buffer) => {
      if (length + chunk.length > maxBytes) return refuse(bodyTooLarge(maxBytes));
      bytes = bytes ? appended(bytes, length, chunk) : chunk;
      length += chunk.length;
    };
    const ended = () => resolve(bytes?.subarray(0, length) ?? Buffer.alloc(0));
    const broken = () => refuse(badRequest('body-malformed', 'the body ended early'));
    const refuse = (problem: ProblemError) => {
      body.off('data', take);
      reject(problem);
    };
    // HTTP/2 tells of a stream that was reset by `aborted`, and then of its end as if it were a good one.
    body.on('aborted', broken).on('error', broken).on('end', ended).on('data', take);
  });
}

/** `bytes` with `chunk` behind its first `length` ones; grows by doubling. */
function appended(bytes: Buffer, length: number, chunk: Buffer): Buffer {
  const needed = length + chunk.length;
  let room = bytes;
  if (needed > bytes.length) {
    room = Buffer.allocUnsafe(Math.max(needed, 2 * bytes.length));
    bytes.copy(room, 0, 0, length);
  }
  chunk.copy(room, length);
  return room;
}

export function bodyTooLarge(max: number): ProblemError {
  const detail = `at most ${max} bytes are taken`;
  return new ProblemError({ status: 413, code: 'body-too-large', title: 'The body is too large', detail });
}
