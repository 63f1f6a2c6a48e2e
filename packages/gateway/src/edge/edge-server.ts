import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type EventSink, handshakeRefusal, type WebTlsHandle } from '@sallyport/core/spi';
import { AddressCount } from '../limits/address-count.js';
import type { ResolvedLimits } from '../options.js';
import { type Problem, problemBody } from '../problem.js';
import { PipelinedAnswers } from './pipelined-answers.js';
import { hasStreamedBody } from './streamed-body.js';

export type EdgeIncoming = IncomingMessage | Http2ServerRequest;
export type EdgeOutgoing = ServerResponse | Http2ServerResponse;

export interface EdgeServer {
  readonly server: Http2SecureServer;
  readonly connections: number;
  /**
   * Asks every client to go elsewhere, whoever comes from now on with its first requests: GOAWAY on HTTP/2; HTTP/1.1 is told by
   * `Connection: close` of the next answer.
   */
  retire(): void;
  /** Ends every connection at once. */
  destroy(): void;
}

export interface EdgeServerContext {
  readonly tls: WebTlsHandle;
  readonly limits: ResolvedLimits;
  readonly events: EventSink;
}

/** How often Node looks for connections whose headers or body take too long, ms: the precision of those limits. */
const CHECK_MS = 500;

/**
 * HTTPS for HTTP/1.1 and HTTP/2 on one port, chosen by ALPN. What Node and Fastify leave unlimited is limited here, before
 * any of their code sees a request.
 */
export function edgeServer(
  context: EdgeServerContext,
  onRequest: (req: EdgeIncoming, res: EdgeOutgoing) => void,
  onUpgrade: (req: IncomingMessage, socket: Duplex, head: Buffer) => void,
): EdgeServer {
  const { tls, limits, events } = context;
  const pipelined = new PipelinedAnswers(limits.maxStreamsPerConnection);
  const take = (req: EdgeIncoming, res: EdgeOutgoing) => {
    if ('stream' in res) onRequest(req, res);
    else if (pipelined.isEnding(req.socket)) req.resume();
    else if (pipelined.add(req.socket, res)) onRequest(req, res);
    else refusePipelined(req.socket);
  };
  const server = createSecureServer(
    {
      ...tls.serverOptions,
      allowHTTP1: true,
      handshakeTimeout: limits.handshakeTimeoutMs,
      maxHeaderListPairs: limits.maxHeaders,
      maxSessionInvalidFrames: 10,
      settings: {
        enablePush: false,
        maxConcurrentStreams: limits.maxStreamsPerConnection,
        maxHeaderListSize: limits.maxHeaderBytes,
        initialWindowSize: 256 * 1024,
      },
    },
    take,
  );
  // RFC 9110 section 10.1.1: what cannot be met may be left alone; Node would answer by itself, past everything that is here.
  server.on('checkExpectation', take);
  limitHttp1(server, limits);
  server.maxConnections = limits.maxConnections;
  server.setTimeout(0);

  const sockets = new Set<Socket>();
  const sessions = new Set<{ close(): void; destroy(): void }>();
  let isRetired = false;
  const perAddress = new AddressCount(limits.maxConnectionsPerAddress);
  /** Of what never became a request. */
  const tell = ({ status, code }: BrokenProblem, detail: string, remoteAddress = 'unknown') =>
    events.emit('request-refused', { request: 'none', method: '', path: '', status, code, remoteAddress, detail });
  /** Whoever asks for so much at once does not wait for a refusal in its turn. */
  const refusePipelined = (socket: Socket) => {
    tell(
      pipelinedTooFar,
      'too many requests, or one for another protocol, before others were answered',
      socket.remoteAddress,
    );
    socket.destroy();
  };
  const refused = (reason: 'too-many-connections', detail: string, address: string | undefined) =>
    events.emit('handshake-refused', { reason, detail, remoteAddress: address ?? 'unknown' });

  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? 'unknown';
    const leave = perAddress.enter(address);
    if (!leave) {
      const detail = `${limits.maxConnectionsPerAddress} connections of this address are open`;
      refused('too-many-connections', detail, address);
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.once('close', () => {
      sockets.delete(socket);
      leave();
    });
  });
  server.on('drop', (drop) =>
    refused('too-many-connections', 'the limit of connections is reached', drop?.remoteAddress),
  );
  server.on('tlsClientError', (error, socket) => {
    const { reason, detail } = handshakeRefusal(error, socket);
    events.emit('handshake-refused', { reason, detail, remoteAddress: socket.remoteAddress ?? 'unknown' });
    socket.destroy();
  });
  // Before the listeners of HTTP.
  server.prependListener('secureConnection', (socket: TLSSocket) => {
    const refusal = tls.refusal(socket);
    if (!refusal) return;
    events.emit('handshake-refused', { ...refusal, remoteAddress: socket.remoteAddress ?? 'unknown' });
    socket.destroy();
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.setTimeout(limits.idleTimeoutMs, () => session.close());
    session.once('close', () => sessions.delete(session));
    // With what has come together with it: what comes after the GOAWAY is refused, and may be asked again elsewhere.
    if (isRetired) session.once('stream', () => setImmediate(() => session.close()));
    const { remoteAddress } = session.socket;
    session.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ERR_HTTP2_ERROR') tell(malformed, error.message, remoteAddress);
    });
  });
  server.on('sessionError', ignore);
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    const problem = brokenProblem(error, socket);
    if (!problem || pipelined.isEnding(socket)) return;
    tell(problem, error.code ?? error.name, socket.remoteAddress);
    // Those before it are run, and have the right to their answers.
    if (pipelined.endWithLast(socket)) return;
    // In the middle of an answer a second one would be taken for a part of it.
    if (pipelined.hasBegun(socket)) socket.destroy();
    else answerBroken(problem, socket);
  });
  // Without it Node would serve such requests as if they had not asked.
  server.on('upgrade', (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    // What is still to be answered would be written between the messages of the other protocol.
    if (pipelined.isAwaited(incoming.socket) || pipelined.isEnding(incoming.socket)) refusePipelined(incoming.socket);
    else onUpgrade(incoming, socket, head);
  });
  tls.onChange((options) => server.setSecureContext(options));

  return {
    server,
    get connections() {
      return sockets.size;
    },
    retire() {
      isRetired = true;
      for (const session of sessions) session.close();
    },
    destroy() {
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Node reads these from the server for connections that chose HTTP/1.1, though the types of HTTP/2 do not name them. */
function limitHttp1(server: Http2SecureServer, limits: ResolvedLimits): void {
  Object.assign(server, {
    maxHeaderSize: limits.maxHeaderBytes,
    maxHeadersCount: limits.maxHeaders,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.headersTimeoutMs + limits.bodyTimeoutMs,
    keepAliveTimeout: limits.idleTimeoutMs,
    connectionsCheckingInterval: CHECK_MS,
    // The guard looks for it: Node would answer by itself, and go on with what stands behind that request.
    requireHostHeader: false,
    insecureHTTPParser: false,
  });
}

type BrokenProblem = Pick<Problem, 'status' | 'code' | 'title'>;

const broken: Readonly<Record<string, BrokenProblem>> = {
  HPE_HEADER_OVERFLOW: { status: 431, code: 'headers-too-large', title: 'The headers are too large' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, code: 'request-timeout', title: 'The request took too long to arrive' },
};
const malformed: BrokenProblem = { status: 400, code: 'request-malformed', title: 'The request is malformed' };
const pipelinedTooFar: BrokenProblem = {
  status: 429,
  code: 'pipelined-too-far',
  title: 'There were too many requests',
};
const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};

/** What to say of bytes that are no request; undefined where nobody is there to hear it, or nothing is wrong. */
function brokenProblem(error: NodeJS.ErrnoException, socket: Socket): BrokenProblem | undefined {
  // Broken bytes are told of once for each piece that comes.
  if (!socket.listeners('error').includes(ignore)) socket.on('error', ignore);
  // Node says so once for each request, and goes on reading where nobody ends the connection.
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && hasStreamedBody(socket)) return undefined;
  if (socket.writable && error.code !== 'ECONNRESET') return broken[error.code ?? ''] ?? malformed;
  socket.destroy();
  return undefined;
}

/** What the parser refused never becomes a request: the answer is written by hand, and the connection ends with it. */
function answerBroken(problem: BrokenProblem, socket: Socket): void {
  const body = problemBody(problem, 'none');
  socket.end(
    `HTTP/1.1 ${problem.status} ${phrases[problem.status]}\r\nContent-Type: application/problem+json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  socket.once('finish', () => socket.destroy());
}

function ignore(): void {}
