import type { Writable } from 'node:stream';
import { CallError } from '@sallyport/core';
import type { Fields, RequestHead } from '../http/message.js';
import { type Answer, type Sending, TargetFailure } from '../http/target.js';
import { NoServerError } from '../servers.js';
import type { Channel } from './channel.js';
import type { RetryBudget } from './retry-budget.js';
import { Upload } from './upload.js';
import type { UpstreamPool } from './upstream-pool.js';

export interface FlightContext {
  readonly pool: UpstreamPool;
  readonly budget: RetryBudget;
  /** Nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  /** It came to nothing, and somebody still waits for the answer. */
  onFailure(failure: TargetFailure): void;
  /** Called once, when the request is over. */
  onOver(): void;
}

interface Attempt {
  readonly sending: Sending;
  readonly channel: Channel;
  release(): void;
}

/** Times that one request is sent, at most. */
const MAX_ATTEMPTS = 3;
/** RFC 9110 section 9.2.2. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);

/** One request of the program, sent to one server after the other until there is an answer or no use in it. */
export class Flight implements Sending {
  readonly answer: Promise<Answer>;
  readonly #head: RequestHead;
  readonly #context: FlightContext;
  /** Undefined where there is no body. */
  readonly #upload: Upload | undefined;
  #attempt: Attempt;
  #attempts = 1;
  #onContinue: (() => void) | undefined;
  #isOver = false;

  /** Resolves when there is a connection for it. Rejects with TargetFailure. */
  static async begin(head: RequestHead, context: FlightContext): Promise<Flight> {
    try {
      return new Flight(head, context, await attempt(head, context));
    } catch (error) {
      tell(error, context);
      context.onOver();
      throw error;
    }
  }

  private constructor(head: RequestHead, context: FlightContext, first: Attempt) {
    this.#head = head;
    this.#context = context;
    this.#attempt = first;
    this.#upload = head.hasBody ? new Upload(first.sending) : undefined;
    this.answer = this.#answer();
    // Whoever breaks it off before may never ask.
    this.answer.catch(ignore);
  }

  get version(): Sending['version'] {
    return this.#attempt.sending.version;
  }

  get body(): Writable {
    return this.#upload ?? this.#attempt.sending.body;
  }

  onContinue(listener: () => void): void {
    this.#onContinue = listener;
    this.#attempt.sending.onContinue(listener);
  }

  end(trailers?: Fields): void {
    if (this.#upload) this.#upload.complete(trailers);
    else this.#attempt.sending.end(trailers);
  }

  abort(resetCode?: number): void {
    this.#upload?.destroy();
    this.#attempt.sending.abort(resetCode);
    this.#end();
  }

  async #answer(): Promise<Answer> {
    for (;;) {
      try {
        const answer = await this.#attempt.sending.answer;
        this.#upload?.forget();
        const body = answer.upgraded?.socket ?? answer.body;
        // What breaks in the very read that brings its head is closed before anybody can listen.
        if (body.destroyed) this.#end();
        else body.once('close', () => this.#end());
        return answer;
      } catch (error) {
        this.#attempt.release();
        if (error instanceof TargetFailure && this.#mayRetry(error)) await this.#again();
        else this.#fail(error);
      }
    }
  }

  /** The first server has not acted upon the request, or it does no harm to ask another one too. */
  #mayRetry(failure: TargetFailure): boolean {
    const { signal, budget } = this.#context;
    const isSafe = failure.isUntouched
      ? (this.#upload?.canBeginAgain ?? true)
      : failure.kind === 'broken' && !this.#upload && IDEMPOTENT.has(this.#head.method);
    return isSafe && !this.#isOver && !signal.aborted && this.#attempts < MAX_ATTEMPTS && budget.spend();
  }

  async #again(): Promise<void> {
    this.#context.pool.failed(this.#attempt.channel);
    this.#attempts++;
    try {
      this.#attempt = await attempt(this.#head, this.#context);
    } catch (error) {
      this.#fail(error);
    }
    const { sending } = this.#attempt;
    if (this.#isOver) return sending.abort();
    if (this.#onContinue) sending.onContinue(this.#onContinue);
    if (this.#upload) this.#upload.beginAgain(sending);
    else sending.end();
  }

  #fail(error: unknown): never {
    if (!this.#isOver) tell(error, this.#context);
    this.#end();
    throw error;
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#attempt.release();
    this.#context.onOver();
  }
}

/** Connections go wrong between two requests: whatever has not been sent may be sent elsewhere. */
async function attempt(head: RequestHead, { pool, signal }: FlightContext): Promise<Attempt> {
  for (let attempts = 1; ; attempts++) {
    const channel = await pool.channel(signal, { upgrade: head.upgrade !== undefined }).catch(toFailure);
    try {
      const { sending, release } = await channel.send(head, signal);
      return { sending, release, channel };
    } catch (error) {
      if (!(error instanceof TargetFailure) || error.kind !== 'unreachable') throw error;
      if (signal.aborted || attempts >= MAX_ATTEMPTS) throw error;
    }
  }
}

function tell(error: unknown, { signal, onFailure }: FlightContext): void {
  // What cannot be put into the server's version of HTTP says nothing of the server.
  if (error instanceof TargetFailure && error.kind !== 'malformed' && !signal.aborted) onFailure(error);
}

function toFailure(error: unknown): never {
  if (error instanceof NoServerError)
    throw new TargetFailure(error.isIdentity ? 'untrusted' : 'unreachable', error.message);
  if (error instanceof CallError) throw new TargetFailure('unreachable', error.message);
  throw error;
}

function ignore(): void {}
