import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { AnswerHead, Fields, RequestHead } from './message.js';

/** Where requests go: a program or a server, over connections of its own. `h1Target` and `h2Target` make one. */
export interface HttpTarget {
  /**
   * Begins a request: resolves when there is a connection for it, so that nothing of a body is lost where there is none. Rejects
   * with TargetFailure, which is `unreachable` then.
   */
  send(head: RequestHead, signal: AbortSignal): Promise<Sending>;
  /** Takes no more requests, lets those under way end, closes its connections. */
  retire(): void;
  /** Ends all connections at once. */
  close(): void;
}

/** A request that has been begun. */
export interface Sending {
  /** Takes the body; its end is told by `end`. */
  readonly body: Writable;
  /** Rejects with TargetFailure. */
  readonly answer: Promise<Answer>;
  /** Calls back on `100 Continue`. */
  onContinue(listener: () => void): void;
  /** The body is complete. */
  end(trailers?: Fields): void;
  /** Breaks it off in both directions, so that the other side cannot take it for complete. Harmless after its end. */
  abort(): void;
}

export interface Answer extends AnswerHead {
  /** Ends with `end` when it is complete; with `error`, a TargetFailure, when it broke off. */
  readonly body: Readable;
  /** After the end of the body. */
  trailers(): Fields;
  /** The connection, from here on bytes (status 101), and the first of them. */
  readonly upgraded?: { readonly socket: Socket; readonly first: Buffer };
}

/**
 * `unreachable`: no connection could be had. `refused`: the other side says that it has not acted upon it (RFC 9113 section 8.7).
 * `broken`: the connection or the stream ended in the middle. `malformed`: the message cannot be put into this version of HTTP.
 */
export type FailureKind = 'unreachable' | 'refused' | 'broken' | 'malformed';

/** Why a request came to nothing. */
export class TargetFailure extends Error {
  readonly kind: FailureKind;
  /** Code of the RST_STREAM that ended it (RFC 9113 section 7). */
  readonly resetCode: number | undefined;

  constructor(kind: FailureKind, message: string, resetCode?: number) {
    super(message);
    this.kind = kind;
    this.resetCode = resetCode;
  }

  /** Nobody has acted upon the request: it may be sent elsewhere, whatever it asks. */
  get isUntouched(): boolean {
    return this.kind === 'unreachable' || this.kind === 'refused';
  }
}
