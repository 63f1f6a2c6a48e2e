import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { CONNECTION_WINDOW_BYTES } from './connection-window.js';
import { h2Fields, h2Trailers } from './fields.js';
import type { Fields, RequestHead } from './message.js';
import {
  type Answer,
  type Connect,
  type HttpTarget,
  type Sending,
  TargetFailure,
  type TargetLimits,
} from './target.js';

const { NGHTTP2_NO_ERROR, NGHTTP2_CANCEL, NGHTTP2_REFUSED_STREAM, NGHTTP2_FLAG_END_STREAM } = constants;

/** How long a server that has answered may still take what it was asked, ms. */
const LINGER_MS = 2000;
/** What servers take at once at least (RFC 9113 section 6.5.2), and so as long as they have not told. */
const USUAL_STREAMS = 100;

/** Requests in HTTP/2 with prior knowledge: many on one connection, on another one where it takes no more. */
export function h2Target(connect: Connect, limits: TargetLimits): HttpTarget {
  return new H2Target(connect, limits);
}

class H2Target implements HttpTarget {
  readonly #connect: Connect;
  readonly #limits: TargetLimits;
  readonly #connections = new Set<Connection>();
  readonly #closing = new AbortController();
  #connecting: Promise<Connection> | undefined;

  constructor(connect: Connect, limits: TargetLimits) {
    this.#connect = connect;
    this.#limits = limits;
  }

  async send(head: RequestHead, signal: AbortSignal): Promise<Sending> {
    let connection = this.#free();
    while (!connection) {
      const opened = await this.#open();
      if (signal.aborted) throw new TargetFailure('unreachable', 'it was given up');
      connection = this.#free();
      if (!connection && opened.isIdle) throw new TargetFailure('unreachable', 'the connection takes no requests');
    }
    return connection.send(head);
  }

  retire(): void {
    for (const connection of this.#connections) connection.retire();
  }

  close(): void {
    this.#closing.abort();
    for (const connection of this.#connections) connection.destroy();
  }

  #free(): Connection | undefined {
    for (const connection of this.#connections) if (connection.hasRoom) return connection;
    return undefined;
  }

  /** One at a time: requests that come together share what is being opened. */
  #open(): Promise<Connection> {
    this.#connecting ??= this.#openAnother().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #openAnother(): Promise<Connection> {
    const { signal } = this.#closing;
    let socket: Socket;
    try {
      socket = await this.#connect(signal);
    } catch (error) {
      throw new TargetFailure('unreachable', (error as Error).message);
    }
    if (signal.aborted || socket.destroyed) {
      socket.destroy();
      throw new TargetFailure('unreachable', 'the connection is gone');
    }
    const connection = new Connection(socket, this.#limits, () => this.#connections.delete(connection));
    this.#connections.add(connection);
    return connection;
  }
}

class Connection {
  readonly #session: ClientHttp2Session;
  readonly #scheme: string;
  #streams = 0;
  #isRetired = false;

  constructor(socket: Socket, { maxHeaderBytes, maxBufferedBytes, keepMs }: TargetLimits, onClose: () => void) {
    this.#scheme = socket instanceof TLSSocket ? 'https' : 'http';
    // Node waits for the end of the socket, which would never come where the other side has ended its direction alone.
    socket.allowHalfOpen = false;
    // The address names nobody: the connection is there, and each request has an authority of its own.
    this.#session = connectHttp2('http://sallyport.internal', {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: maxBufferedBytes, maxHeaderListSize: maxHeaderBytes },
    });
    this.#session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    this.#session.setTimeout(keepMs, () => {
      if (this.#streams === 0) this.#session.close();
    });
    this.#session.on('error', ignore);
    this.#session.once('close', onClose);
  }

  get hasRoom(): boolean {
    const { closed, destroyed, remoteSettings } = this.#session;
    if (this.#isRetired || closed || destroyed) return false;
    return this.#streams < Math.min(remoteSettings?.maxConcurrentStreams ?? USUAL_STREAMS, USUAL_STREAMS);
  }

  get isIdle(): boolean {
    return this.#streams === 0;
  }

  send(head: RequestHead): Sending {
    let stream: ClientHttp2Stream;
    try {
      stream = this.#session.request(
        {
          ':method': head.method,
          ':scheme': this.#scheme,
          ':authority': head.authority,
          ':path': head.path,
          ...withContinue(head),
        },
        // Waiting for trailers has another use: Node would end a stream before it resets it, and half a body look whole.
        { endStream: !head.hasBody, waitForTrailers: head.hasBody },
      );
    } catch {
      // Node says what it cannot write by throwing; its words quote it.
      throw new TargetFailure('malformed', 'the request cannot be said in HTTP/2');
    }
    this.#streams++;
    stream.once('close', () => {
      this.#streams--;
      if (this.#isRetired && this.#streams === 0) this.#session.close();
    });
    return new H2Sending(stream);
  }

  retire(): void {
    this.#isRetired = true;
    this.#session.close();
  }

  destroy(): void {
    this.#session.destroy();
  }
}

class H2Sending implements Sending {
  readonly version = 'h2';
  readonly body: ClientHttp2Stream;
  readonly answer: Promise<Answer>;
  #trailers: Fields | undefined;

  constructor(stream: ClientHttp2Stream) {
    this.body = stream;
    stream.once('wantTrailers', () => stream.sendTrailers({ ...this.#trailers } as OutgoingHttpHeaders));
    stream.on('error', ignore);
    stream.once('end', () => linger(stream));
    this.answer = new Promise((resolve, reject) => {
      let trailers: Fields = {};
      let hasBegun = false;
      let hasEnded = false;
      stream.once('end', () => {
        hasEnded = true;
      });
      stream.once('trailers', (headers) => {
        trailers = h2Trailers(headers);
      });
      stream.once('response', (headers, flags) => {
        hasBegun = true;
        resolve({
          status: headers[':status'] ?? 0,
          headers: h2Fields(headers),
          hasBody: (flags & NGHTTP2_FLAG_END_STREAM) === 0,
          body: stream as Readable,
          failure: () => (hasEnded && stream.rstCode === NGHTTP2_NO_ERROR ? undefined : failureOf(stream)),
          trailers: () => trailers,
        });
      });
      stream.once('close', () => {
        if (!hasBegun) reject(failureOf(stream));
      });
    });
    // Whoever has gone asks no more for it.
    this.answer.catch(ignore);
  }

  onContinue(listener: () => void): void {
    this.body.once('continue', listener);
  }

  end(trailers?: Fields): void {
    this.#trailers = trailers;
    this.body.end();
  }

  abort(resetCode: number = NGHTTP2_CANCEL): void {
    if (this.body.closed) this.body.destroy();
    else this.body.close(resetCode);
  }
}

/**
 * The answer is complete. A server may want no more of the body then (RST_STREAM, NO_ERROR: RFC 9113 section 8.1), and Node waits for
 * ever for what it has not sent of it.
 */
function linger(stream: ClientHttp2Stream): void {
  if (stream.writableFinished) return;
  const timer = setTimeout(() => stream.destroy(), stream.closed ? 0 : LINGER_MS).unref();
  stream.once('close', () => clearTimeout(timer));
}

function withContinue({ headers, expectsContinue }: RequestHead): Fields {
  return expectsContinue ? { ...headers, expect: '100-continue' } : headers;
}

function failureOf(stream: ClientHttp2Stream): TargetFailure {
  const { rstCode } = stream;
  if (rstCode === NGHTTP2_REFUSED_STREAM) return new TargetFailure('refused', 'the request was refused', rstCode);
  return new TargetFailure('broken', 'the answer broke off', rstCode === 0 ? undefined : rstCode);
}

function ignore(): void {}
