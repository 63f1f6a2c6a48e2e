import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { AnswerHead, Fields, RequestHead } from './message.js';

/** Opens a connection for requests. Rejects when there is none to be had, or when the signal aborts. */
export type Connect = (signal: AbortSignal) => Promise<Socket>;

export interface TargetLimits {
  /** Size of the headers of an answer, bytes. */
  readonly maxHeaderBytes: number;
  /** Bytes of an answer that may wait for a slow caller. */
  readonly maxBufferedBytes: number;
  /** A connection without requests is kept so long, ms. */
  readonly keepMs: number;
}

/** Where requests go: a program or a server, over connections of its own. `h1Target` and `h2Target` make one. */
export interface HttpTarget {
  /**
   * Begins a request: resolves when there is a connection for it, so that nothing of a body is lost where there is none. Rejects
   * with TargetFailure, which is `unreachable` then.
   */
  send(head: RequestHead, signal: AbortSignal): Promise<Sending>;
  /** Lets go of connections as soon as nothing is under way on them; further requests open new ones. */
  retire(): void;
  /** Ends all connections at once. */
  close(): void;
}

/** A request that has been begun. */
export interface Sending {
  readonly version: 'h1' | 'h2';
  /** Takes the body; its end is told by `end`. */
  readonly body: Writable;
  /** Rejects with TargetFailure. */
  readonly answer: Promise<Answer>;
  /** Calls back on `100 Continue`. */
  onContinue(listener: () => void): void;
  /** The request is complete. */
  end(trailers?: Fields): void;
  /**
   * Breaks it off in both directions, so that the other side cannot take it for complete. Harmless after its end. `resetCode`: that of
   * RST_STREAM on HTTP/2, CANCEL unless told.
   */
  abort(resetCode?: number): void;
}

export interface Answer extends AnswerHead {
  /** Node also ends what broke off: only `failure` tells whether it is complete. */
  readonly body: Readable;
  /** At the end of the body: why it is not complete; undefined when it is. */
  failure(): TargetFailure | undefined;
  /** After the end of the body. */
  trailers(): Fields;
  /** The connection, from here on bytes (status 101), and the first of them. */
  readonly upgraded?: { readonly socket: Socket; readonly first: Buffer };
}

/**
 * `unreachable`: no connection could be had. `untrusted`: nobody could prove to be who is meant. `refused`: the other side says that it has not acted upon it (RFC 9113 section 8.7).
 * `broken`: the connection or the stream ended in the middle. `malformed`: the message cannot be put into this version of HTTP.
 */
export type FailureKind = 'unreachable' | 'untrusted' | 'refused' | 'broken' | 'malformed';

/** Why a request came to nothing. */
export class TargetFailure extends Error {
  override readonly name = 'TargetFailure';
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
    return this.kind !== 'broken' && this.kind !== 'malformed';
  }
}
