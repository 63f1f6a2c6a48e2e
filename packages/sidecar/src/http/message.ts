/**
 * Headers or trailers by lower-case name, those of one connection (RFC 9110 section 7.6.1) and pseudo-headers left out. Repeated ones
 * are one list (section 5.3); only `set-cookie` cannot be.
 */
export type Fields = Readonly<Record<string, string | readonly string[]>>;

/** A request as it is passed on. */
export interface RequestHead {
  readonly method: string;
  /** In origin form (RFC 9112 section 3.2.1): path and query. */
  readonly path: string;
  /** `host[:port]`, as `Host` or `:authority`. */
  readonly authority: string;
  readonly headers: Fields;
  /** False: the request ends with its head. */
  readonly hasBody: boolean;
  /** The protocol it asks to change to; only HTTP/1.1 knows of it. */
  readonly upgrade?: 'websocket';
  /** Waits for `100 Continue` before its body (RFC 9110 section 10.1.1). */
  readonly expectsContinue?: boolean;
}

export interface AnswerHead {
  readonly status: number;
  readonly headers: Fields;
  /** False: the answer ends with its head. */
  readonly hasBody: boolean;
}
