import {
  constants,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import { systemClock, type Timer } from '@sallyport/core/spi';
import { CONNECTION_WINDOW_BYTES } from './connection-window.js';
import { h2Trailers } from './fields.js';
import type { Incoming } from './incoming.js';
import type { AnswerHead, Fields } from './message.js';
import { answerTo, Refusal } from './refusal.js';
import {
  connectRefused,
  type HttpConnection,
  type HttpServer,
  malformed,
  type ReadHead,
  type RequestHandler,
  readHead,
  type ServerLimits,
} from './server.js';

const { NGHTTP2_NO_ERROR, NGHTTP2_INTERNAL_ERROR } = constants;

/** Pseudo-headers stand among the headers, and one more shows that there were too many. */
const PSEUDO_HEADERS = 5;

/** HTTP/2 on connections that others accept, by ALPN or with prior knowledge. */
export class H2Server implements HttpServer {
  readonly #limits: ServerLimits;
  readonly #server: Http2Server;
  readonly #connections = new Set<H2Connection>();
  #session: ServerHttp2Session | undefined;

  constructor(limits: ServerLimits) {
    this.#limits = limits;
    this.#server = createServer({
      maxHeaderListPairs: limits.maxHeaders + PSEUDO_HEADERS,
      maxSessionInvalidFrames: 10,
      settings: {
        enablePush: false,
        maxConcurrentStreams: limits.maxRequestsPerConnection,
        maxHeaderListSize: limits.maxHeaderBytes,
        initialWindowSize: limits.maxBufferedBytes,
      },
    });
    this.#server.on('sessionError', ignore);
    this.#server.on('session', (session) => {
      this.#session = session;
    });
  }

  accept(socket: Socket, handler: RequestHandler): HttpConnection {
    this.#session = undefined;
    // Node waits for the end of the socket, which would never come where the other side has ended its direction alone.
    socket.allowHalfOpen = false;
    this.#server.emit('connection', socket);
    // The server tells of the session before it returns.
    const session = this.#session as ServerHttp2Session | undefined;
    if (!session) throw new TypeError('the connection has chosen another protocol');
    const connection = new H2Connection(session, handler, this.#limits);
    this.#connections.add(connection);
    session.once('close', () => {
      this.#connections.delete(connection);
      connection.release();
    });
    return connection;
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy();
  }
}

class H2Connection implements HttpConnection {
  readonly #session: ServerHttp2Session;
  readonly #handler: RequestHandler;
  readonly #limits: ServerLimits;
  #requests = 0;
  #grace: Timer | undefined;
  #probe: Timer;

  constructor(session: ServerHttp2Session, handler: RequestHandler, limits: ServerLimits) {
    this.#session = session;
    this.#handler = handler;
    this.#limits = limits;
    session.on('error', ignore);
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    session.setTimeout(limits.idleTimeoutMs, () => {
      if (this.#requests === 0) session.close();
    });
    this.#probe = systemClock.after(limits.keepaliveIntervalMs, () => this.#ask());
    session.on(
      'stream',
      (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, raw: readonly string[]) =>
        this.#serve(stream, headers, raw),
    );
  }

  get requests(): number {
    return this.#requests;
  }

  drain(graceMs: number): void {
    if (this.#grace) return;
    this.#session.close();
    this.#grace = systemClock.after(graceMs, () => this.destroy());
  }

  destroy(): void {
    this.#session.destroy();
  }

  release(): void {
    this.#grace?.cancel();
    this.#probe.cancel();
  }

  /** A peer that is gone without a word answers nothing, and neither does one to whom nghttp2 has said goodbye for an error. */
  #ask(): void {
    const { keepaliveIntervalMs, keepaliveTimeoutMs } = this.#limits;
    this.#probe = systemClock.after(keepaliveTimeoutMs, () => this.destroy());
    this.#session.ping((error) => {
      this.#probe.cancel();
      if (!error) this.#probe = systemClock.after(keepaliveIntervalMs, () => this.#ask());
    });
  }

  #serve(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: readonly string[]): void {
    this.#requests++;
    stream.once('close', () => this.#requests--);
    stream.on('error', ignore);
    let incoming: Incoming;
    try {
      const method = headers[':method'] ?? '';
      if (method === 'CONNECT') throw connectRefused();
      const target = headers[':path'];
      if (target === undefined) throw malformed('target-missing', 'the request has no path');
      const head = readHead(raw, headers[':authority'], this.#limits);
      incoming = new H2Incoming(stream, { ...head, method, target });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#handler.refused(error);
      refuse(stream, error);
      return;
    }
    this.#handler.request(incoming);
  }
}

interface H2Head extends ReadHead {
  readonly method: string;
  readonly target: string;
}

class H2Incoming implements Incoming {
  readonly version = 'h2';
  readonly method: string;
  readonly target: string;
  readonly authority: string;
  readonly headers: Fields;
  readonly upgrade = undefined;
  readonly expectsContinue: boolean;
  readonly #stream: ServerHttp2Stream;
  #requestTrailers: Fields = {};
  #answerTrailers: Fields | undefined;

  constructor(stream: ServerHttp2Stream, { method, target, authority, headers, expectsContinue }: H2Head) {
    this.#stream = stream;
    this.method = method;
    this.target = target;
    this.authority = authority;
    this.headers = headers;
    this.expectsContinue = expectsContinue;
    stream.once('trailers', (trailers) => {
      this.#requestTrailers = h2Trailers(trailers);
    });
    // A caller may go with no code at all (RST_STREAM, NO_ERROR): Node waits for ever for what it has not sent of the answer.
    stream.once('aborted', () => setImmediate(() => stream.destroy()));
    stream.once('wantTrailers', () => stream.sendTrailers({ ...this.#answerTrailers } as OutgoingHttpHeaders));
    stopReadingAfter(stream);
  }

  get hasBody(): boolean {
    return !this.#stream.endAfterHeaders;
  }

  get body(): ServerHttp2Stream {
    return this.#stream;
  }

  get answer(): ServerHttp2Stream {
    return this.#stream;
  }

  get hasAnswer(): boolean {
    return this.#stream.headersSent;
  }

  trailers(): Fields {
    return this.#requestTrailers;
  }

  sendContinue(): void {
    if (!this.#stream.headersSent && !this.#stream.destroyed) this.#stream.additionalHeaders({ ':status': 100 });
  }

  respond({ status, headers }: AnswerHead, end: boolean): void {
    if (this.#stream.headersSent || this.#stream.destroyed) return;
    // Waiting for trailers has another use: Node would end a stream before it resets it, and half a body look whole.
    this.#stream.respond({ ':status': status, ...headers } as OutgoingHttpHeaders, {
      endStream: end,
      waitForTrailers: !end,
    });
  }

  end(trailers?: Fields): void {
    this.#answerTrailers = trailers;
    this.#stream.end();
  }

  takeOver(): never {
    throw new TypeError('a stream of HTTP/2 changes to no other protocol');
  }

  breakOff(resetCode: number = NGHTTP2_INTERNAL_ERROR): void {
    if (!this.#stream.destroyed) this.#stream.close(resetCode);
  }

  onClose(listener: (complete: boolean) => void): void {
    this.#stream.once('close', () => listener(this.#stream.writableFinished && !this.#stream.aborted));
  }
}

function refuse(stream: ServerHttp2Stream, refusal: Refusal): void {
  const { head, body } = answerTo(refusal, false);
  stopReadingAfter(stream);
  stream.respond({ ':status': head.status, ...head.headers } as OutgoingHttpHeaders);
  stream.end(body);
}

/** RFC 9113 section 8.1: a complete answer, then RST_STREAM, where the body is not wanted any more. */
function stopReadingAfter(stream: ServerHttp2Stream): void {
  stream.once('finish', () => {
    if (stream.readableEnded || stream.endAfterHeaders) return;
    // Node forgets to send the reset of a stream that is closed in this very turn.
    setImmediate(() => {
      if (!stream.destroyed) stream.close(NGHTTP2_NO_ERROR);
    });
  });
}

function ignore(): void {}
