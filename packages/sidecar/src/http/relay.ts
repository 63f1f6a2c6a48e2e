import { constants } from 'node:http2';
import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { relay as relayBytes } from '../relay.js';
import type { Incoming } from './incoming.js';
import type { Fields, RequestHead } from './message.js';
import { isGrpc, Refusal, refuse } from './refusal.js';
import { breakOff } from './server.js';
import { type Answer, type HttpTarget, type Sending, TargetFailure } from './target.js';

const { NGHTTP2_INADEQUATE_SECURITY, NGHTTP2_CANCEL } = constants;

/** How long after the end of a stream its reset may still arrive, ms: see Relay#sent. */
const RESET_FOLLOWS_MS = 1;

/** Why signals abort. One for all: to make one captures a stack. */
const OVER = new DOMException('the request is over', 'AbortError');

export interface RelayLimits {
  /** A body of which nothing arrives is given up after it, ms. */
  readonly bodyTimeoutMs: number;
  /** A request of which nothing travels in either direction is given up after it, ms. */
  readonly requestIdleTimeoutMs: number;
  /** Longest time of a request with its answer, ms. */
  readonly requestTimeoutMs: number;
  /** A connection that has changed to bytes is ended after so long without any, ms. */
  readonly idleTimeoutMs: number;
  /** What may wait in each direction of such a connection, bytes. */
  readonly maxBufferedBytes: number;
}

export interface RelayOptions {
  readonly limits: RelayLimits;
  /** Told of every piece that came from the caller, and that went to it, bytes. */
  onReceived?(bytes: number): void;
  onSent?(bytes: number): void;
  /** What goes on of the trailers of the request. Default: all. */
  passTrailers?(trailers: Fields): Fields;
}

/** How a request went. */
export interface Outcome {
  /** Of the answer that was passed on; undefined when there was none. */
  readonly status: number | undefined;
  /** `gone`: the caller; `late`: a limit of time; `cut`: by us. Undefined when all of the answer was passed on. */
  readonly failure: TargetFailure | 'gone' | 'late' | 'cut' | undefined;
}

/**
 * Passes a request on, and its answer back, as fast as the slower side takes them. What breaks off on one side breaks off on the other,
 * so that it never looks whole. A request that comes to nothing is answered with a refusal.
 */
export class Relay {
  /** Resolves when it is over; never rejects. */
  readonly done: Promise<Outcome>;
  readonly #incoming: Incoming;
  readonly #head: RequestHead;
  readonly #options: RelayOptions;
  readonly #giveUp = new AbortController();
  readonly #whole: NodeJS.Timeout;
  #idle: NodeJS.Timeout;
  #sending: Sending | undefined;
  #upgraded: Socket | undefined;
  #status: number | undefined;
  #failure: Outcome['failure'];
  #isUploaded = false;
  #isOver = false;

  constructor(incoming: Incoming, head: RequestHead, target: Pick<HttpTarget, 'send'>, options: RelayOptions) {
    this.#incoming = incoming;
    this.#head = head;
    this.#options = options;
    const { requestTimeoutMs, requestIdleTimeoutMs, bodyTimeoutMs } = options.limits;
    this.#whole = setTimeout(() => this.#late(), requestTimeoutMs).unref();
    this.#idle = setTimeout(() => this.#stalled(), head.hasBody ? bodyTimeoutMs : requestIdleTimeoutMs).unref();
    this.done = new Promise((resolve) => {
      incoming.onClose((complete) => {
        this.#over(complete);
        resolve({ status: this.#status, failure: this.#failure });
      });
    });
    void this.#pass(target);
  }

  /** Ends it: with this refusal, or in the middle of the answer. */
  cut(refusal: Refusal): void {
    this.#end('cut', refusal, isGrpc(this.#incoming) ? NGHTTP2_INADEQUATE_SECURITY : NGHTTP2_CANCEL);
  }

  async #pass(target: Pick<HttpTarget, 'send'>): Promise<void> {
    try {
      const sending = await target.send(this.#head, this.#giveUp.signal);
      this.#sending = sending;
      // It may have ended on either side while there was no connection yet.
      sending.answer.catch(ignore);
      if (this.#isOver) {
        sending.abort();
        return;
      }
      this.#upload(sending);
      const answer = await sending.answer;
      if (this.#isOver) sending.abort();
      else if (answer.upgraded) this.#change(answer, answer.upgraded);
      else this.#download(answer);
    } catch (error) {
      this.#failed(error instanceof TargetFailure ? error : new TargetFailure('broken', 'the answer is malformed'));
    }
  }

  #upload(sending: Sending): void {
    const { body, expectsContinue } = this.#incoming;
    if (!this.#head.hasBody) {
      this.#isUploaded = true;
      sending.end();
      return;
    }
    if (expectsContinue) sending.onContinue(() => this.#incoming.sendContinue());
    pump(body, sending.body, (bytes) => {
      this.#idle.refresh();
      this.#options.onReceived?.(bytes);
    });
    body.once('end', () => this.#sent(sending));
  }

  /**
   * Clients on node:http2 cancel by a good end of the stream and a reset in the next packet. HTTP/2 passes on both; in HTTP/1.1 the end
   * would be final, and half a body look whole.
   */
  #sent(sending: Sending): void {
    const isFinal = sending.version === 'h1' && this.#incoming.version === 'h2';
    if (isFinal && this.#head.headers['content-length'] === undefined) {
      setTimeout(() => setImmediate(() => this.#uploaded(sending)), RESET_FOLLOWS_MS);
    } else {
      this.#uploaded(sending);
    }
  }

  #uploaded(sending: Sending): void {
    if (this.#isOver) return;
    this.#isUploaded = true;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#stalled(), this.#options.limits.requestIdleTimeoutMs).unref();
    const { passTrailers = same } = this.#options;
    const trailers = passTrailers(this.#incoming.trailers());
    sending.end(hasAny(trailers) ? trailers : undefined);
  }

  #download(answer: Answer): void {
    const incoming = this.#incoming;
    // What breaks in the very read that brings its head is closed before anybody can listen.
    const broken = answer.hasBody && answer.body.destroyed ? answer.failure() : undefined;
    if (broken) {
      this.#failed(broken);
      return;
    }
    this.#status = answer.status;
    incoming.respond(answer, !answer.hasBody);
    if (!answer.hasBody) {
      answer.body.resume();
      return;
    }
    pump(answer.body, incoming.answer, (bytes) => {
      this.#idle.refresh();
      this.#options.onSent?.(bytes);
    });
    answer.body.once('end', () => {
      if (answer.failure()) return;
      const trailers = answer.trailers();
      incoming.end(hasAny(trailers) ? trailers : undefined);
    });
    answer.body.once('close', () => {
      const failure = answer.failure();
      if (failure) this.#failed(failure);
    });
  }

  /** From here on bytes, in both directions. */
  #change(answer: Answer, { socket, first }: NonNullable<Answer['upgraded']>): void {
    const { limits } = this.#options;
    this.#status = answer.status;
    clearTimeout(this.#whole);
    clearTimeout(this.#idle);
    this.#upgraded = socket;
    const caller = this.#incoming.takeOver(answer);
    if (first.length > 0) caller.socket.write(first);
    if (caller.first.length > 0) socket.write(caller.first);
    caller.socket.setTimeout(limits.idleTimeoutMs, () => this.#break());
    relayBytes(
      {
        socket: caller.socket,
        reset: () => breakOff(caller.socket),
        onRead: (bytes) => this.#options.onReceived?.(bytes),
      },
      { socket, reset: () => breakOff(socket), onRead: (bytes) => this.#options.onSent?.(bytes) },
      limits.maxBufferedBytes,
    );
  }

  #failed(failure: TargetFailure): void {
    if (this.#isOver) return;
    const { hasAnswer } = this.#incoming;
    if (isGrpc(this.#incoming) && failure.resetCode !== undefined) {
      // What the other side has said in HTTP/2, it has said.
      this.#failure = failure;
      this.#incoming.breakOff(failure.resetCode);
    } else if (isGrpc(this.#incoming) && hasAnswer) {
      this.#failure = failure;
      const { grpcStatus, message } = refusalOf(failure);
      this.#incoming.end({ 'grpc-status': String(grpcStatus), 'grpc-message': message });
    } else {
      this.#end(failure, refusalOf(failure));
    }
  }

  #stalled(): void {
    const isSlow = !this.#isUploaded && this.#sending !== undefined && !this.#sending.body.writableNeedDrain;
    if (isSlow && !this.#incoming.hasAnswer) this.#end('late', tooSlow());
    else this.#late();
  }

  #late(): void {
    this.#end('late', tooLate());
  }

  #end(why: NonNullable<Outcome['failure']>, refusal: Refusal, resetCode?: number): void {
    if (this.#isOver) return;
    this.#failure = why;
    this.#sending?.abort();
    this.#giveUp.abort(OVER);
    if (this.#upgraded) this.#break();
    else if (this.#incoming.hasAnswer) this.#incoming.breakOff(resetCode);
    else refuse(this.#incoming, refusal);
  }

  #break(): void {
    if (this.#upgraded) breakOff(this.#upgraded);
    this.#incoming.breakOff();
  }

  /** Whatever is still under way for a caller who has gone, or has an answer already, is for nobody. */
  #over(complete: boolean): void {
    this.#isOver = true;
    clearTimeout(this.#whole);
    clearTimeout(this.#idle);
    if (!complete) {
      this.#failure ??= 'gone';
      this.#giveUp.abort(OVER);
    }
    if (this.#upgraded) return;
    if (!complete || !this.#isUploaded || this.#failure) this.#sending?.abort();
  }
}

function pump(from: Readable, to: Writable, onBytes: (bytes: number) => void): void {
  from.on('data', (bytes: Buffer) => {
    onBytes(bytes.length);
    if (to.destroyed || to.writableEnded) return;
    if (!to.write(bytes)) from.pause();
  });
  const resume = () => from.resume();
  to.on('drain', resume);
  // Whoever takes no more is told the rest as well, which is then forgotten: the end of it must be seen.
  to.once('close', resume);
}

function refusalOf({ kind }: TargetFailure): Refusal {
  if (kind === 'malformed') {
    return new Refusal({ status: 400, code: 'request-malformed', title: 'The request cannot be passed on' });
  }
  if (kind === 'broken') {
    return new Refusal({ status: 502, code: 'upstream-failed', title: 'The service broke off' });
  }
  if (kind === 'untrusted') {
    return new Refusal({ status: 502, code: 'upstream-untrusted', title: 'The service could not be verified' });
  }
  return new Refusal({ status: 503, code: 'upstream-unreachable', title: 'The service cannot be reached' });
}

function tooSlow(): Refusal {
  return new Refusal({ status: 408, code: 'request-timeout', title: 'The request took too long to arrive' });
}

function tooLate(): Refusal {
  return new Refusal({ status: 504, code: 'timeout', title: 'The request took too long' });
}

function hasAny(fields: Fields): boolean {
  for (const _ in fields) return true;
  return false;
}

function same(fields: Fields): Fields {
  return fields;
}

function ignore(): void {}
