import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type Clock, systemClock, type Timer } from '@sallyport/core/spi';
import { h1Fields, trailersOf } from './fields.js';
import type { Incoming } from './incoming.js';
import type { AnswerHead, Fields } from './message.js';
import { answerTo, Refusal } from './refusal.js';
import {
  breakOff,
  connectRefused,
  type HttpConnection,
  type HttpServer,
  headersTooLarge,
  malformed,
  type ReadHead,
  type RequestHandler,
  readHead,
  type ServerLimits,
} from './server.js';

/** How often Node looks for connections whose headers or body take too long, ms: the precision of those limits. */
const CHECK_MS = 500;
/** How long the rest of a body is read that nobody wants any more, ms: a connection that is closed before may lose the answer. */
const LINGER_MS = 2000;

export interface H1ServerOptions {
  /** Serves requests that offer to go on in HTTP/2 as if they had not. Default false: they are refused. */
  readonly ignoresH2c?: boolean;
}

/** HTTP/1.1 on connections that others accept. */
export class H1Server implements HttpServer {
  readonly #limits: ServerLimits;
  readonly #ignoresH2c: boolean;
  readonly #server: Server;
  readonly #connections = new Map<Duplex, H1Connection>();

  constructor(limits: ServerLimits, { ignoresH2c = false }: H1ServerOptions = {}) {
    this.#limits = limits;
    this.#ignoresH2c = ignoresH2c;
    this.#server = createServer({
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: Math.max(limits.requestTimeoutMs, limits.headersTimeoutMs),
      keepAliveTimeout: limits.idleTimeoutMs,
      connectionsCheckingInterval: CHECK_MS,
      maxHeaderSize: limits.maxHeaderBytes,
      insecureHTTPParser: false,
      // Node would answer by itself, and tell nobody.
      requireHostHeader: false,
      ...(ignoresH2c ? { shouldUpgradeCallback: isNotH2c } : {}),
    } as ServerOptions);
    // Node leaves out what is too many: one more shows that there were.
    this.#server.maxHeadersCount = limits.maxHeaders + 1;
    this.#server.on('request', (request, response) => this.#serve(request, response, false));
    this.#server.on('checkContinue', (request, response) => this.#serve(request, response, true));
    this.#server.on('checkExpectation', (request) => this.#refuse(request.socket, expectationRefused()));
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket as Socket, head));
    this.#server.on('connect', (_request, socket) => this.#refuse(socket as Socket, connectRefused()));
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#broken(error, socket as Socket));
    // Node begins to look for slow requests when it listens; this server never does, others accept for it.
    this.#server.emit('listening');
  }

  accept(socket: Socket, handler: RequestHandler): HttpConnection {
    const connection = new H1Connection(socket, handler, this.#limits.maxRequestsPerConnection);
    this.#connections.set(socket, connection);
    socket.once('close', () => {
      this.#connections.delete(socket);
      connection.release();
    });
    this.#server.emit('connection', socket);
    return connection;
  }

  close(): void {
    this.#server.close();
    for (const connection of this.#connections.values()) connection.destroy();
  }

  #serve(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const connection = this.#connections.get(request.socket);
    if (!connection || connection.isRefused) return;
    if (connection.isEnding) {
      request.resume();
      return;
    }
    let head: ReadHead;
    try {
      if (request.httpVersion !== '1.1') throw versionRefused();
      if (connection.isFull) throw tooManyRequests();
      head = readHead(request.rawHeaders, undefined, this.#limits);
    } catch (error) {
      this.#refuse(request.socket, error as Refusal);
      return;
    }
    connection.begin(new H1Incoming(connection, request, response, { ...head, expectsContinue }));
  }

  #upgrade(request: IncomingMessage, socket: Socket, first: Buffer): void {
    const connection = this.#connections.get(socket);
    if (!connection) return;
    socket.on('error', ignore);
    // The server has let go of the connection: what it has set there would cut what follows.
    socket.setTimeout(0);
    try {
      if (request.httpVersion !== '1.1') throw versionRefused();
      const head = readHead(request.rawHeaders, undefined, this.#limits);
      if (this.#ignoresH2c && head.upgrade === 'h2c' && connection.requests === 0) {
        this.#readAgain(request, socket, first);
        return;
      }
      // Its bytes are no request, or are another one: neither may be guessed.
      if (hasBody(request)) throw malformed('upgrade-with-body', 'a request to change the protocol has no body');
      if (connection.requests > 0 || connection.isEnding)
        throw malformed('upgrade-pipelined', 'the answer to an earlier request is not there');
      connection.begin(new H1Upgrade(connection, request, head, first));
    } catch (error) {
      this.#refuse(socket, error as Refusal);
    }
  }

  /**
   * Java's client offers HTTP/2 with its first request in the clear. Whoever does not want it answers as if nothing had been offered
   * (RFC 9110 section 7.8). Before version 24.9 Node has given the connection away by then: it gets the request once more, without the offer.
   */
  #readAgain({ method, url, rawHeaders }: IncomingMessage, socket: Socket, first: Buffer): void {
    const lines = [`${method} ${url} HTTP/1.1\r\n`];
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const [name = '', value = ''] = rawHeaders.slice(i, i + 2);
      if (!/^(?:connection|upgrade|http2-settings)$/i.test(name)) lines.push(`${name}: ${value}\r\n`);
      else if (/^connection$/i.test(name) && /\bclose\b/i.test(value)) lines.push('Connection: close\r\n');
    }
    socket.unshift(Buffer.concat([Buffer.from(`${lines.join('')}\r\n`, 'latin1'), first]));
    this.#server.emit('connection', socket);
  }

  /** What the parser refused never becomes a request. */
  #broken(error: NodeJS.ErrnoException, socket: Socket): void {
    const connection = this.#connections.get(socket);
    if (!connection || error.code === 'ECONNRESET' || error.code === 'EPIPE') {
      socket.destroy();
      return;
    }
    this.#refuse(socket, brokenRequest(error.code));
  }

  /** Answers by hand and ends the connection: whatever follows on it cannot be told from the request. */
  #refuse(socket: Socket, refusal: Refusal): void {
    const connection = this.#connections.get(socket);
    if (!connection || connection.isRefused) return;
    connection.isRefused = true;
    socket.on('error', ignore);
    connection.handler.refused(refusal);
    // In the middle of an answer another one would become a part of it.
    if (!socket.writable || connection.requests > 0) {
      breakOff(socket);
      return;
    }
    const { head, body } = answerTo(refusal, false);
    const headers = Object.entries(head.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.end(`${statusLine(refusal.status)}${headers.join('')}connection: close\r\n\r\n${body}`);
    socket.once('finish', () => socket.destroy());
  }
}

/** Node asks it from version 24.9 on. */
function isNotH2c({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() !== 'h2c';
}

class H1Connection implements HttpConnection {
  readonly socket: Socket;
  readonly handler: RequestHandler;
  readonly #maxRequests: number;
  readonly clock: Clock = systemClock;
  requests = 0;
  isLeaving = false;
  /** What came on it was refused: nothing that follows can be told from it. */
  isRefused = false;
  /** An answer has told its end: what follows would be run, and never answered (RFC 9112 section 9.6). */
  isEnding = false;
  readonly #unfinished = new Set<() => void>();
  #grace: Timer | undefined;

  constructor(socket: Socket, handler: RequestHandler, maxRequests: number) {
    this.socket = socket;
    this.handler = handler;
    this.#maxRequests = maxRequests;
  }

  get isFull(): boolean {
    return this.requests >= this.#maxRequests;
  }

  begin(incoming: Incoming): void {
    this.requests++;
    incoming.onClose(() => {
      this.requests--;
      if (this.isLeaving && this.requests === 0) this.socket.destroySoon();
    });
    this.handler.request(incoming);
  }

  drain(graceMs: number): void {
    if (this.isLeaving) return;
    this.isLeaving = true;
    if (this.requests === 0) this.socket.destroySoon();
    this.#grace = this.clock.after(graceMs, () => this.destroy());
  }

  destroy(): void {
    breakOff(this.socket);
  }

  /** Calls back, once, when the answer is closed. Node tells of the end of a connection only the one that it is writing, and none behind it. */
  onClose(answer: ServerResponse, listener: () => void): void {
    const close = (): void => {
      if (this.#unfinished.delete(close)) listener();
    };
    this.#unfinished.add(close);
    answer.once('close', close);
  }

  release(): void {
    this.#grace?.cancel();
    for (const close of this.#unfinished) close();
  }
}

class H1Incoming implements Incoming {
  readonly version = 'h1';
  readonly authority: string;
  readonly headers: Fields;
  readonly expectsContinue: boolean;
  readonly hasBody: boolean;
  readonly upgrade = undefined;
  readonly body: IncomingMessage;
  readonly answer: ServerResponse;
  readonly #connection: H1Connection;
  #hasAnswer = false;
  #isContinued = false;

  constructor(connection: H1Connection, request: IncomingMessage, response: ServerResponse, head: ReadHead) {
    this.#connection = connection;
    this.body = request;
    this.answer = response;
    this.authority = head.authority;
    this.headers = head.headers;
    this.expectsContinue = head.expectsContinue;
    this.hasBody = hasBody(request);
    request.on('error', ignore);
    response.on('error', ignore);
    response.once('finish', () => this.#stopReading());
  }

  get method(): string {
    return this.body.method ?? '';
  }

  get target(): string {
    return this.body.url ?? '';
  }

  get hasAnswer(): boolean {
    return this.#hasAnswer;
  }

  trailers(): Fields {
    return trailersOf(this.body.rawTrailers);
  }

  sendContinue(): void {
    if (this.#isContinued || this.#hasAnswer || !this.expectsContinue) return;
    this.#isContinued = true;
    this.answer.writeContinue();
  }

  respond({ status, headers }: AnswerHead, end: boolean): void {
    if (this.#hasAnswer || this.answer.destroyed) return;
    this.#hasAnswer = true;
    const written = h1Fields(headers, !end);
    // RFC 9110 section 10.1.1: a body that was not asked for may come all the same, or not; nobody could tell it from a request.
    const isUnclear = this.expectsContinue && !this.#isContinued;
    if (isUnclear || this.#connection.isLeaving) {
      written.connection = 'close';
      this.#connection.isEnding = true;
    }
    if (end && !isBodiless(this.method, status)) written['content-length'] ??= '0';
    const { answer } = this;
    answer.writeHead(status, written);
    if (end) {
      answer.end();
      return;
    }
    // With the first piece of the body, if it is there already. Not by a cork of the answer: Node 24 puts its end before what waits there.
    const { socket } = this.#connection;
    socket.cork();
    answer.flushHeaders();
    setImmediate(() => socket.uncork());
  }

  end(trailers?: Fields): void {
    if (trailers) this.answer.addTrailers(h1Fields(trailers, true));
    this.answer.end();
  }

  takeOver(): never {
    throw new TypeError('the request did not ask for another protocol');
  }

  breakOff(): void {
    this.#hasAnswer = true;
    breakOff(this.#connection.socket);
  }

  onClose(listener: (complete: boolean) => void): void {
    this.#connection.onClose(this.answer, () => listener(this.answer.writableFinished));
  }

  /** The answer is given. What is still to come of the request is read and forgotten, for a while. */
  #stopReading(): void {
    const { body } = this;
    if (body.complete || body.destroyed) return;
    body.removeAllListeners('data');
    body.resume();
    const timer = this.#connection.clock.after(LINGER_MS, () => this.breakOff());
    body.once('close', () => timer.cancel());
  }
}

/** Answers by hand: Node gives the connection away with the request. */
class H1Upgrade implements Incoming {
  readonly version = 'h1';
  readonly authority: string;
  readonly headers: Fields;
  readonly expectsContinue = false;
  readonly hasBody = false;
  readonly upgrade: string | undefined;
  readonly body: IncomingMessage;
  readonly #connection: H1Connection;
  readonly #first: Buffer;
  #hasAnswer = false;
  #isTaken = false;

  constructor(connection: H1Connection, request: IncomingMessage, head: ReadHead, first: Buffer) {
    this.#connection = connection;
    this.body = request;
    this.authority = head.authority;
    this.headers = head.headers;
    this.upgrade = head.upgrade;
    this.#first = first;
  }

  get method(): string {
    return this.body.method ?? '';
  }

  get target(): string {
    return this.body.url ?? '';
  }

  get hasAnswer(): boolean {
    return this.#hasAnswer;
  }

  get answer(): Socket {
    return this.#connection.socket;
  }

  trailers(): Fields {
    return {};
  }

  sendContinue(): void {}

  respond({ status, headers }: AnswerHead, end: boolean): void {
    const length = end && !isBodiless(this.method, status) ? { 'content-length': '0' } : {};
    this.#write(status, { ...length, ...h1Fields(headers, false), connection: 'close' });
    if (end) this.answer.end();
  }

  end(): void {
    this.answer.end();
  }

  takeOver({ status, headers }: AnswerHead): { readonly socket: Socket; readonly first: Buffer } {
    this.#isTaken = true;
    this.#write(status, { ...headers, connection: 'upgrade', upgrade: this.upgrade ?? '' });
    return { socket: this.answer, first: this.#first };
  }

  breakOff(): void {
    breakOff(this.answer);
  }

  onClose(listener: (complete: boolean) => void): void {
    const { answer } = this;
    answer.once('close', () => listener(answer.writableFinished));
    // A relay of bytes ends the connection itself; after an answer there is nothing to wait for.
    answer.once('finish', () => {
      if (!this.#isTaken) answer.destroy();
    });
  }

  #write(status: number, fields: Fields): void {
    if (this.#hasAnswer || !this.answer.writable) return;
    this.#hasAnswer = true;
    const lines = Object.entries(fields).flatMap(([name, value]) =>
      (typeof value === 'string' ? [value] : value).map((one) => `${name}: ${one}\r\n`),
    );
    this.answer.write(`${statusLine(status)}${lines.join('')}\r\n`, 'latin1');
  }
}

const brokenRequests: Readonly<Record<string, Refusal>> = {
  HPE_HEADER_OVERFLOW: headersTooLarge('the headers are larger than is taken'),
  ERR_HTTP_REQUEST_TIMEOUT: new Refusal({
    status: 408,
    code: 'request-timeout',
    title: 'The request took too long to arrive',
  }),
};

function brokenRequest(code: string | undefined): Refusal {
  return brokenRequests[code ?? ''] ?? malformed('request-malformed', 'the request is no HTTP/1.1');
}

function versionRefused(): Refusal {
  return new Refusal({ status: 505, code: 'version-refused', title: 'Only HTTP/1.1 and HTTP/2 are spoken here' });
}

/** RFC 9110 section 10.1.1: there is no other than `100-continue`. */
function expectationRefused(): Refusal {
  return new Refusal({
    status: 417,
    code: 'expectation-refused',
    title: 'No other expectation is met than 100-continue',
  });
}

function tooManyRequests(): Refusal {
  return new Refusal({ status: 429, code: 'too-many-requests', title: 'Too many requests are under way here' });
}

function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n`;
}

function hasBody({ headers }: IncomingMessage): boolean {
  const { 'content-length': length } = headers;
  return headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0');
}

/** RFC 9110 section 6.4.1 */
function isBodiless(method: string, status: number): boolean {
  return method === 'HEAD' || status < 200 || status === 204 || status === 304;
}

function ignore(): void {}
