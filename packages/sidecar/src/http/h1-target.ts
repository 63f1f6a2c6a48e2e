import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { isUnknownCoding } from '@sallyport/core/spi';
import { fieldsOf, h1Fields, trailersOf } from './fields.js';
import type { Fields, RequestHead } from './message.js';
import {
  type Answer,
  type Connect,
  type HttpTarget,
  type Sending,
  TargetFailure,
  type TargetLimits,
} from './target.js';

/** RFC 9110 section 9.2.2: twice is as good as once. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);

/** Requests in HTTP/1.1, each on a connection that no other uses at the same time. */
export function h1Target(connect: Connect, limits: TargetLimits): HttpTarget {
  return new H1Target(connect, limits);
}

class H1Target implements HttpTarget {
  readonly #agent: ConnectingAgent;
  readonly #limits: TargetLimits;

  constructor(connect: Connect, limits: TargetLimits) {
    this.#agent = new ConnectingAgent(connect, limits.keepMs);
    this.#limits = limits;
  }

  send(head: RequestHead, signal: AbortSignal): Promise<Sending> {
    return new Promise((resolve, reject) => {
      const sending = new H1Sending(this.#agent, this.#limits, head, signal);
      sending.onConnected(() => resolve(sending));
      sending.answer.catch(reject);
    });
  }

  retire(): void {
    this.#agent.keepNone();
  }

  close(): void {
    this.#agent.keepNone();
    this.#agent.destroy();
  }
}

interface ConnectingOptions extends RequestOptions {
  readonly giveUp: AbortSignal;
}

/** Keeps connections that others open. */
class ConnectingAgent extends Agent {
  readonly #connect: Connect;

  constructor(connect: Connect, keepMs: number) {
    super({ keepAlive: true, timeout: keepMs });
    this.#connect = connect;
  }

  override createConnection(options: object, callback?: (error: Error | null, socket: Socket) => void): undefined {
    const done = callback as (error: Error | null, socket?: Socket) => void;
    this.#connect((options as ConnectingOptions).giveUp).then(
      (socket) => {
        // A server that ends a connection between two requests has ended it altogether.
        socket.allowHalfOpen = false;
        done(null, socket);
      },
      (error: Error) => done(new TargetFailure('unreachable', error.message)),
    );
    return undefined;
  }

  /** Connections are no longer kept: those in use end with their request. */
  keepNone(): void {
    (this as { keepAlive?: boolean }).keepAlive = false;
    this.closeIdle();
  }

  closeIdle(): void {
    for (const sockets of Object.values(this.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }
}

class H1Sending implements Sending {
  readonly version = 'h1';
  readonly answer: Promise<Answer>;
  readonly #agent: ConnectingAgent;
  readonly #limits: TargetLimits;
  readonly #head: RequestHead;
  readonly #signal: AbortSignal;
  #request: ClientRequest | undefined;
  #response: IncomingMessage | undefined;
  #resolve: (answer: Answer) => void = ignore;
  #reject: (error: TargetFailure) => void = ignore;
  #onConnected: () => void = ignore;
  #onContinue: () => void = ignore;
  #isConnected = false;
  #isAborted = false;
  #isBroken = false;
  #isRepeated = false;

  constructor(agent: ConnectingAgent, limits: TargetLimits, head: RequestHead, signal: AbortSignal) {
    this.#agent = agent;
    this.#limits = limits;
    this.#head = head;
    this.#signal = signal;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#begin();
  }

  get body(): ClientRequest {
    // There is one as soon as anybody has this object: it is handed out when it is connected.
    return this.#request as ClientRequest;
  }

  onConnected(listener: () => void): void {
    this.#onConnected = listener;
  }

  onContinue(listener: () => void): void {
    this.#onContinue = listener;
  }

  end(trailers?: Fields): void {
    if (trailers) this.#request?.addTrailers(h1Fields(trailers, true));
    this.#request?.end();
  }

  abort(): void {
    this.#isAborted = true;
    this.#request?.destroy();
  }

  #begin(): void {
    let request: ClientRequest;
    try {
      request = httpRequest({
        agent: this.#agent,
        method: this.#head.method,
        path: this.#head.path,
        headers: headersOf(this.#head),
        setHost: false,
        insecureHTTPParser: false,
        maxHeaderSize: this.#limits.maxHeaderBytes,
        giveUp: this.#signal,
      } as ConnectingOptions);
    } catch {
      // Node says what it cannot write by throwing; its words quote it.
      this.#reject(new TargetFailure('malformed', 'the request cannot be said in HTTP/1.1'));
      return;
    }
    this.#request = request;
    request.once('socket', () => {
      this.#isConnected = true;
      this.#onConnected();
    });
    request.once('continue', () => this.#onContinue());
    request.once('response', (response) => this.#answered(response));
    request.once('upgrade', (response, socket: Socket, first) => {
      if (!this.#head.upgrade) {
        socket.destroy();
        this.#reject(new TargetFailure('broken', 'the answer is in another protocol'));
        return;
      }
      socket.setTimeout(0);
      this.#resolve({ ...answerOf(response, this.#head.method), failure: none, upgraded: { socket, first } });
    });
    request.on('error', (error) => this.#failed(error));
    if (this.#isRepeated) request.end();
  }

  #answered(response: IncomingMessage): void {
    this.#response = response;
    try {
      this.#resolve({ ...answerOf(response, this.#head.method), failure: () => this.#failureOf(response) });
    } catch {
      this.#request?.destroy();
      this.#reject(new TargetFailure('broken', 'the answer is malformed'));
    }
  }

  #failed(error: Error): void {
    if (this.#response && !this.#response.complete) {
      this.#isBroken = true;
      this.#response.destroy();
    }
    if (this.#mayRepeat()) {
      this.#isRepeated = true;
      this.#agent.closeIdle();
      this.#begin();
    } else {
      this.#reject(failureOf(error, this.#isConnected));
    }
  }

  /** Node takes the end of a connection for the end of an answer of unknown length, also when it is a reset. */
  #failureOf({ complete }: IncomingMessage): TargetFailure | undefined {
    return complete && !this.#isBroken ? undefined : new TargetFailure('broken', 'the answer broke off');
  }

  /** RFC 9112 section 9.3.1: a kept connection may end at the very moment at which it is used again. */
  #mayRepeat(): boolean {
    const { method, hasBody, upgrade } = this.#head;
    const isStale = this.#request?.reusedSocket === true && !this.#response;
    return isStale && !this.#isAborted && !this.#isRepeated && !hasBody && !upgrade && IDEMPOTENT.has(method);
  }
}

function failureOf(error: Error, isConnected: boolean): TargetFailure {
  if (error instanceof TargetFailure) return error;
  const { code } = error as NodeJS.ErrnoException;
  return new TargetFailure(isConnected ? 'broken' : 'unreachable', code ?? 'the connection broke off');
}

function headersOf({ method, authority, headers, hasBody, upgrade, expectsContinue }: RequestHead) {
  const written: Record<string, string | string[]> = { host: authority, ...h1Fields(headers, hasBody) };
  if (upgrade) Object.assign(written, { connection: 'upgrade', upgrade });
  if (expectsContinue) written.expect = '100-continue';
  if (hasBody) {
    if (headers['content-length'] === undefined) written['transfer-encoding'] = 'chunked';
  } else if (method === 'POST' || method === 'PUT' || method === 'PATCH') {
    // RFC 9110 section 8.6: these anticipate a body.
    written['content-length'] = '0';
  }
  return written;
}

function answerOf(response: IncomingMessage, method: string): Omit<Answer, 'failure'> {
  const status = response.statusCode ?? 0;
  if (isUnknownCoding(response.headers['transfer-encoding'])) throw new Error('a transfer coding that is not known');
  const headers = fieldsOf(response.rawHeaders);
  const isEmpty =
    method === 'HEAD' || status === 204 || status === 304 || status < 200 || headers['content-length'] === '0';
  return {
    status,
    headers,
    hasBody: !isEmpty,
    body: response as Readable,
    trailers: () => trailersOf(response.rawTrailers),
  };
}

function none(): undefined {}

function ignore(): void {}
