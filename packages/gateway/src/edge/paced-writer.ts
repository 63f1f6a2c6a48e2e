import { constants } from 'node:http2';
import type { Duplex } from 'node:stream';
import { ProblemError } from '../problem.js';
import type { EdgeOutgoing } from './edge-server.js';

export interface PaceLimits {
  /** Size of a body, bytes. */
  readonly maxStreamBytes: number;
  /** How long a client may take nothing, ms. */
  readonly streamIdleTimeoutMs: number;
}

/** Writes a body of unknown length, no faster than the client takes it. */
export class PacedWriter {
  readonly #outgoing: EdgeOutgoing;
  readonly #limits: PaceLimits;
  #bytes = 0;

  constructor(outgoing: EdgeOutgoing, limits: PaceLimits) {
    this.#outgoing = outgoing;
    this.#limits = limits;
  }

  /** Resolves (or returns nothing) when the next part may come. Throws ProblemError when the client takes nothing or has had too much. */
  write(part: string | Uint8Array): Promise<void> | undefined {
    const { maxStreamBytes } = this.#limits;
    this.#bytes += typeof part === 'string' ? Buffer.byteLength(part) : part.length;
    if (this.#bytes > maxStreamBytes) throw streamTooLong(maxStreamBytes);
    return writeTo(this.#outgoing, part) ? undefined : this.#drained();
  }

  #drained(): Promise<void> {
    const outgoing = this.#outgoing;
    const { streamIdleTimeoutMs } = this.#limits;
    return new Promise((resolve, reject) => {
      const settle = (error?: ProblemError) => {
        clearTimeout(timer);
        outgoing.removeListener('drain', onDrain);
        outgoing.removeListener('close', onClose);
        if (error) reject(error);
        else resolve();
      };
      const onDrain = () => settle();
      const onClose = () => settle(new ProblemError({ status: 499, code: 'cancelled', title: 'The client is gone' }));
      const timer = setTimeout(() => {
        breakOff(outgoing);
        settle(tooSlow(streamIdleTimeoutMs));
      }, streamIdleTimeoutMs);
      timer.unref();
      outgoing.on('drain', onDrain);
      outgoing.on('close', onClose);
    });
  }
}

/** For both versions of HTTP, whose types share no `write`. */
export function writeTo(outgoing: EdgeOutgoing, part: string | Uint8Array): boolean {
  return (outgoing as { write(part: string | Uint8Array): boolean }).write(part);
}

export function writeHeadTo(outgoing: EdgeOutgoing, status: number, headers: object): void {
  const head = outgoing as { writeHead(status: number, headers: object): unknown; flushHeaders(): void };
  head.writeHead(status, headers);
  head.flushHeaders();
}

/** A client that takes nothing does not take the end of an answer either: `ms` from now the answer ends without it. */
export function breakOffUnlessTaken(outgoing: EdgeOutgoing, ms: number): void {
  const timer = setTimeout(() => breakOff(outgoing), ms);
  timer.unref();
  outgoing.once('close', () => clearTimeout(timer));
}

/** Ends an answer in its middle, so that no client takes it for complete; a connection that was switched, at once. */
export function breakOff(outgoing: EdgeOutgoing | Duplex): void {
  if ('stream' in outgoing) outgoing.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else outgoing.destroy();
}

export function streamTooLong(max: number): ProblemError {
  const detail = `at most ${max} bytes are sent in one stream`;
  return new ProblemError({ status: 413, code: 'stream-too-long', title: 'The stream is too long', detail });
}

function tooSlow(ms: number): ProblemError {
  const problem = { status: 408, code: 'client-too-slow', title: 'The client takes nothing' };
  return new ProblemError(problem, { reason: `the client has taken nothing for ${ms} ms` });
}
