import type { OutgoingHttpHeaders } from 'node:http';
import type { EdgeOutgoing } from '../edge/edge-server.js';
import { ProblemError } from '../problem.js';
import type { StreamFormat } from './stream-format.js';
import type { StreamLimits } from './stream-limits.js';

/** The body of an answer that grows message by message, no faster than the client takes it. */
export class AnswerStream {
  readonly #outgoing: EdgeOutgoing;
  readonly #format: StreamFormat;
  readonly #limits: StreamLimits;
  #heartbeat: NodeJS.Timeout | undefined;
  #bytes = 0;

  /** Sends status and headers. */
  constructor(outgoing: EdgeOutgoing, headers: OutgoingHttpHeaders, format: StreamFormat, limits: StreamLimits) {
    this.#outgoing = outgoing;
    this.#format = format;
    this.#limits = limits;
    writeHead(outgoing, { ...headers, 'content-type': format.contentType, 'x-accel-buffering': 'no' });
    if (format.heartbeat === '') return;
    this.#heartbeat = setInterval(() => {
      if (!outgoing.writableNeedDrain) write(outgoing, format.heartbeat);
    }, limits.heartbeatMs);
    this.#heartbeat.unref();
    outgoing.once('close', () => clearInterval(this.#heartbeat));
  }

  /** Resolves when the next message may come. Throws ProblemError when the client takes nothing, or has had too much. */
  async send(message: unknown): Promise<void> {
    const text = this.#format.message(JSON.stringify(message));
    this.#bytes += Buffer.byteLength(text);
    if (this.#bytes > this.#limits.maxStreamBytes) throw streamTooLong(this.#limits.maxStreamBytes);
    this.#heartbeat?.refresh();
    if (!write(this.#outgoing, text)) await this.#drained();
  }

  end(): void {
    this.#close(this.#format.end);
  }

  fail(problemJson: string): void {
    this.#close(this.#format.failure(problemJson));
  }

  #close(last: string): void {
    clearInterval(this.#heartbeat);
    if (this.#outgoing.destroyed) return;
    // A client that takes nothing will not take the end either: the connection ends without it, which no client takes for success.
    const timer = setTimeout(() => destroy(this.#outgoing), this.#limits.streamIdleTimeoutMs);
    timer.unref();
    this.#outgoing.once('close', () => clearTimeout(timer));
    if (last === '') this.#outgoing.end();
    else (this.#outgoing as { end(text: string): void }).end(last);
  }

  #drained(): Promise<void> {
    const outgoing = this.#outgoing;
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
        destroy(outgoing);
        settle(tooSlow(this.#limits.streamIdleTimeoutMs));
      }, this.#limits.streamIdleTimeoutMs);
      timer.unref();
      outgoing.on('drain', onDrain);
      outgoing.on('close', onClose);
    });
  }
}

export function streamTooLong(max: number): ProblemError {
  const detail = `at most ${max} bytes are sent in one stream`;
  return new ProblemError({ status: 413, code: 'stream-too-long', title: 'The stream is too long', detail });
}

function tooSlow(ms: number): ProblemError {
  const problem = { status: 408, code: 'client-too-slow', title: 'The client takes nothing' };
  return new ProblemError(problem, { reason: `the client has taken nothing for ${ms} ms` });
}

function writeHead(outgoing: EdgeOutgoing, headers: OutgoingHttpHeaders): void {
  const head = outgoing as { writeHead(status: number, headers: object): unknown; flushHeaders(): void };
  head.writeHead(200, headers);
  head.flushHeaders();
}

function write(outgoing: EdgeOutgoing, text: string): boolean {
  return (outgoing as { write(text: string): boolean }).write(text);
}

function destroy(outgoing: EdgeOutgoing): void {
  if ('stream' in outgoing) outgoing.stream.destroy();
  else outgoing.destroy();
}
