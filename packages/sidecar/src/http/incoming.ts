import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { AnswerHead, Fields } from './message.js';

/** A request that came in, by either version of HTTP. Its headers have one reading; nothing else has been judged. */
export interface Incoming {
  readonly version: 'h1' | 'h2';
  /** Any but CONNECT. */
  readonly method: string;
  /** As it came: `/path?query`, and from HTTP/1.1 perhaps an absolute URI or `*`. */
  readonly target: string;
  /** `host[:port]`, well-formed, as it came. */
  readonly authority: string;
  /** Of the request itself: what belongs to the connection has been taken out. */
  readonly headers: Fields;
  readonly hasBody: boolean;
  /** What it asks to change to, in lower case (`websocket`). */
  readonly upgrade: string | undefined;
  readonly expectsContinue: boolean;
  readonly body: Readable;
  /** After the end of the body. */
  trailers(): Fields;

  /** True as soon as the head of the answer is sent. */
  readonly hasAnswer: boolean;
  sendContinue(): void;
  /** `end`: nothing follows. Otherwise the body is written to `answer`, and `end` tells of its end. */
  respond(head: AnswerHead, end: boolean): void;
  readonly answer: Writable;
  end(trailers?: Fields): void;
  /** Switches the connection to bytes with this answer; only where `upgrade` is there. */
  takeOver(head: AnswerHead): { readonly socket: Socket; readonly first: Buffer };
  /** Ends it in a way that nobody takes for a good end. `resetCode`: that of RST_STREAM, on HTTP/2. */
  breakOff(resetCode?: number): void;
  /** Once, when it is over: the answer was given, or the caller has gone (`complete` is false). */
  onClose(listener: (complete: boolean) => void): void;
}
