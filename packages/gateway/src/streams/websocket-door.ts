import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Cancellation } from '@sallyport/core';
import type { EventSink } from '@sallyport/core/spi';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Principal } from '../auth/handler.js';
import type { EdgeGuard, GuardedRequest } from '../edge/edge-guard.js';
import { tellRefusal, tellUnguarded } from '../edge/refusal-event.js';
import type { Exchange, Stage } from '../exchange.js';
import type { ResolvedLimits } from '../options.js';
import { badRequest, ProblemError, problemBody, timedOut } from '../problem.js';
import { problemOf } from '../routes/http-status.js';
import type { Route } from '../routes/route.js';
import type { RouteTable } from '../routes/route-table.js';
import type { SocketHandler } from './bidi-handler.js';

export interface WebSocketDoorContext {
  readonly guard: EdgeGuard;
  readonly table: RouteTable;
  readonly limits: ResolvedLimits;
  readonly events: EventSink;
  readonly stagesFor: (route: Route) => readonly Stage[];
  /** Undefined for routes that are none of WebSocket. */
  readonly socketHandlerFor: (route: Route) => SocketHandler | undefined;
}

/** Resolves when the connection is over, with the status of the handshake. `route` is undefined where there is none. */
export type OnUpgrade = (
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
) => Promise<{ readonly route: Route | undefined; readonly status: number }>;

const SWITCHED = 101;
const CLIENT_GONE = 499;

/**
 * Requests to switch to WebSocket (RFC 6455), on HTTP/1.1. They pass the same guard, the same cross-origin policy, the same
 * limits and the same authentication as any other request, all of it before the handshake: a browser sends cookies along
 * with a WebSocket that any page opens, and asks nobody. Resolves when the connection is over.
 */
export function webSocketDoor(context: WebSocketDoorContext): OnUpgrade {
  const { guard, table, limits, events, stagesFor, socketHandlerFor } = context;
  const served = new Map<
    Route,
    { readonly stages: readonly Stage[]; readonly handler: SocketHandler; readonly server: WebSocketServer }
  >();
  for (const { route } of table.routes) {
    const handler = socketHandlerFor(route);
    if (!handler) continue;
    const maxPayload = route.options.maxBodyBytes ?? limits.maxBodyBytes;
    const server = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false, maxPayload });
    served.set(route, { stages: stagesFor(route), handler, server });
  }

  return async (incoming, socket, head) => {
    socket.on('error', () => {});
    let request: GuardedRequest | undefined;
    let exchange: UpgradeExchange | undefined;
    try {
      request = guard.admit(incoming, socket);
      const found = table.match(request.method, request.path);
      const route = found && served.get(found.route);
      if (!found || !route) throw notHere(table, request.path);
      if (incoming.headers.upgrade?.toLowerCase() !== 'websocket') throw notWebSocket();
      request.params = found.params;
      request.route = found.route;
      exchange = new UpgradeExchange(request, found.route);
      // Also while it waits for its turn, or for who it is.
      const over = () => request?.end();
      socket.once('close', over);
      for (const stage of route.stages) await stage(exchange);
      if (socket.destroyed) return { route: found.route, status: CLIENT_GONE };
      exchange.begin();
      const webSocket = await accepted(route.server, incoming, socket, head, request.id);
      if (!webSocket) return { route: found.route, status: CLIENT_GONE };
      const gone = new Promise<void>((resolve) => webSocket.once('close', () => resolve()));
      void gone.then(over);
      await route.handler(exchange, webSocket);
      await gone;
      return { route: found.route, status: SWITCHED };
    } catch (error) {
      const refusal = request?.expired ? timedOut(problemOf(error)) : problemOf(error);
      const id = request?.id ?? randomUUID();
      if (request) tellRefusal(events, request, refusal, exchange?.principal?.subject);
      else tellUnguarded(events, id, incoming, refusal);
      answer(socket, refusal, id, exchange?.answerHeaders ?? {});
      return { route: request?.route, status: refusal.problem.status };
    } finally {
      request?.end();
    }
  };
}

class UpgradeExchange implements Exchange {
  readonly request: GuardedRequest;
  readonly route: Route;
  readonly answerHeaders: Exchange['answerHeaders'] = {};
  principal: Principal | undefined;

  constructor(request: GuardedRequest, route: Route) {
    this.request = request;
    this.route = route;
  }

  get deadlineAt(): number {
    return this.request.deadlineAt;
  }

  get cancellation(): Cancellation {
    return this.request.cancellation;
  }

  onEnd(listener: () => void): void {
    this.request.onEnd(listener);
  }

  begin(): void {
    this.request.begin();
  }
}

/** Resolves with undefined for a client that has ended its direction meanwhile: all that `ws` does then is to end the other one. */
function accepted(
  server: WebSocketServer,
  incoming: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  id: string,
): Promise<WebSocket | undefined> {
  return new Promise((resolve, reject) => {
    // All of it happens within the call, so no other handshake can hear these.
    const named = (headers: string[]) => headers.push(`x-request-id: ${id}`);
    const refused = () => reject(badRequest('handshake-malformed', 'the WebSocket handshake is not valid'));
    server.on('headers', named);
    server.on('wsClientError', refused);
    server.handleUpgrade(incoming, socket, head, resolve);
    server.off('headers', named);
    server.off('wsClientError', refused);
    if (socket.destroyed) resolve(undefined);
  });
}

const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  421: 'Misdirected Request',
  429: 'Too Many Requests',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** There is no response object: Node has given the connection away. It ends with the answer. */
function answer(socket: Duplex, { problem }: ProblemError, id: string, headers: Exchange['answerHeaders']): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const body = problemBody(problem, id);
  const lines = Object.entries({
    ...headers,
    ...problem.headers,
    'content-type': 'application/problem+json',
    'content-length': Buffer.byteLength(body),
    'x-request-id': id,
    connection: 'close',
  }).flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => `${name}: ${one}\r\n`));
  socket.end(`HTTP/1.1 ${problem.status} ${phrases[problem.status] ?? 'Refused'}\r\n${lines.join('')}\r\n${body}`);
  socket.once('finish', () => socket.destroy());
}

function notHere(table: RouteTable, path: string): ProblemError {
  if (table.methodsFor(path).length > 0) return notWebSocket();
  return new ProblemError({ status: 404, code: 'not-found', title: 'There is nothing here' });
}

function notWebSocket(): ProblemError {
  return badRequest('upgrade-refused', 'this cannot be had over another protocol');
}
