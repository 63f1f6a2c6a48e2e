import type { OutgoingHttpHeaders } from 'node:http';
import type { EdgeOutgoing } from '../edge/edge-server.js';
import { breakOffUnlessTaken, PacedWriter, writeHeadTo, writeTo } from '../edge/paced-writer.js';
import type { StreamFormat } from './stream-format.js';
import type { StreamLimits } from './stream-limits.js';

/** The body of an answer that grows message by message. */
export class AnswerStream {
  readonly #outgoing: EdgeOutgoing;
  readonly #writer: PacedWriter;
  readonly #format: StreamFormat;
  readonly #limits: StreamLimits;
  #heartbeat: NodeJS.Timeout | undefined;

  /** Sends status and headers. */
  constructor(outgoing: EdgeOutgoing, headers: OutgoingHttpHeaders, format: StreamFormat, limits: StreamLimits) {
    this.#outgoing = outgoing;
    this.#writer = new PacedWriter(outgoing, limits);
    this.#format = format;
    this.#limits = limits;
    writeHeadTo(outgoing, 200, { ...headers, 'content-type': format.contentType, 'x-accel-buffering': 'no' });
    if (format.heartbeat === '') return;
    this.#heartbeat = setInterval(() => {
      if (!outgoing.writableNeedDrain) writeTo(outgoing, format.heartbeat);
    }, limits.heartbeatMs);
    this.#heartbeat.unref();
    outgoing.once('close', () => clearInterval(this.#heartbeat));
  }

  /** Resolves when the next message may come. Throws ProblemError when the client takes nothing, or has had too much. */
  async send(message: unknown): Promise<void> {
    this.#heartbeat?.refresh();
    await this.#writer.write(this.#format.message(JSON.stringify(message)));
  }

  end(): void {
    this.#close(this.#format.end);
  }

  fail(problemJson: string): void {
    this.#close(this.#format.failure(problemJson));
  }

  #close(last: string): void {
    const outgoing = this.#outgoing;
    clearInterval(this.#heartbeat);
    if (outgoing.destroyed) return;
    breakOffUnlessTaken(outgoing, this.#limits.streamIdleTimeoutMs);
    if (last !== '') writeTo(outgoing, last);
    outgoing.end();
  }
}
