import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { Cancellation } from '@sallyport/core';
import type { EventSink } from '@sallyport/core/spi';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { EdgeGuard, GuardedRequest } from './edge/edge-guard.js';
import type { EdgeIncoming, EdgeOutgoing } from './edge/edge-server.js';
import { endWith } from './edge/last-answer.js';
import { breakOffUnlessTaken } from './edge/paced-writer.js';
import { tellRefusal, tellUnguarded } from './edge/refusal-event.js';
import { stopReadingAfter } from './edge/stop-reading.js';
import { parseStrictJson } from './edge/strict-json.js';
import { bodyTooLarge, wholeBody } from './edge/whole-body.js';
import type { Exchange, Stage } from './exchange.js';
import type { GatewayMetrics } from './metrics/gateway-metrics.js';
import type { ResolvedLimits } from './options.js';
import { type Problem, ProblemError, problemBody, timedOut } from './problem.js';
import { problemOf } from './routes/http-status.js';
import type { HttpMethod } from './routes/route.js';
import type { RouteTable, TableRoute } from './routes/route-table.js';
import type { SocketHandler } from './streams/bidi-handler.js';
import { type OnUpgrade, webSocketDoor } from './streams/websocket-door.js';

/** How a route answers once its stages have let the request through. Resolves when the answer is on its way. */
export type RouteHandler = (exchange: Exchange, reply: FastifyReply, body: unknown) => Promise<unknown>;

export interface ApplicationContext {
  readonly guard: EdgeGuard;
  readonly limits: ResolvedLimits;
  readonly events: EventSink;
  readonly metrics: GatewayMetrics;
  readonly table: RouteTable;
  /** What is done for every request of the route, in this order. */
  readonly stagesFor: (route: TableRoute['route']) => readonly Stage[];
  readonly handlerFor: (route: TableRoute['route']) => RouteHandler;
  /** Undefined for routes that are none of WebSocket. */
  readonly socketHandlerFor: (route: TableRoute['route']) => SocketHandler | undefined;
  /** Answers OPTIONS of a path that exists. Throws ProblemError. */
  readonly preflight: (request: GuardedRequest, methods: readonly HttpMethod[]) => Readonly<Record<string, string>>;
  /** Whether connections are to be closed after their next answer. */
  readonly draining: () => boolean;
}

export interface Application {
  readonly onRequest: (req: EdgeIncoming, res: EdgeOutgoing) => void;
  /** A client of HTTP/1.1 wants another protocol. */
  readonly onUpgrade: (...upgrade: Parameters<OnUpgrade>) => Promise<void>;
  /** Requests under way, open WebSockets among them. */
  readonly pending: number;
  /** Resolves once no request is under way. */
  idle(): Promise<void>;
  ready(): Promise<void>;
  close(): Promise<void>;
}

/** RFC 6797, and what else keeps a browser from doing more with an answer than the page that asked may. */
const SECURITY_HEADERS = {
  'strict-transport-security': 'max-age=31536000',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
} as const;

const FORM = 'application/x-www-form-urlencoded';
const MAX_FORM_BYTES = 32 * 1024;

/** For metrics alone: nobody has seen an answer. */
const CLIENT_GONE = 499;

const guarded = Symbol('guarded request');
type Guarded = EdgeIncoming & { [guarded]?: GuardedRequest };

/**
 * The router with everything in front of it and behind it: the guard sees a request before Fastify does, and routes see only
 * what the guard has made of it.
 */
export async function application(context: ApplicationContext): Promise<Application> {
  let pending = 0;
  let onIdle: (() => void)[] = [];
  const fastify = Fastify({
    logger: false,
    trustProxy: false,
    exposeHeadRoutes: true,
    // Canonical already; a second opinion about paths is what attackers look for.
    routerOptions: {
      ignoreTrailingSlash: false,
      ignoreDuplicateSlashes: false,
      caseSensitive: true,
      maxParamLength: 1024,
    },
    return503OnClosing: false,
  });
  // The server is ours; Fastify only routes.
  const dispatch = fastify.routing as unknown as (req: EdgeIncoming, res: EdgeOutgoing) => void;
  fastify.removeAllContentTypeParsers();
  fastify.setErrorHandler((error, request, reply) => refuse(context, request, reply, translated(error)));
  fastify.setNotFoundHandler((request, reply) => notFound(context, request, reply));
  await fastify.register(async (scope) => {
    scope.addContentTypeParser('application/json', async (request: WithExchange, payload: Readable) => {
      const { maxJsonDepth: maxDepth, maxJsonKeys: maxKeys } = context.limits;
      const maxBytes = request[exchangeKey]?.route.options.maxBodyBytes ?? context.limits.maxBodyBytes;
      if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw bodyTooLarge(maxBytes);
      return parseStrictJson(await wholeBody(payload, maxBytes), { maxDepth, maxKeys });
    });
    for (const { route } of context.table.routes) {
      if (route.kind === 'rpc' && !isUpload(route)) addRoute(scope, route, context);
    }
  });
  await fastify.register(async (scope) => {
    // What a page or the issuer of a login sends to the gateway itself.
    scope.addContentTypeParser(FORM, async (request: FastifyRequest, payload: Readable) => {
      if (Number(request.headers['content-length'] ?? 0) > MAX_FORM_BYTES) throw bodyTooLarge(MAX_FORM_BYTES);
      return new URLSearchParams(Buffer.from(await wholeBody(payload, MAX_FORM_BYTES)).toString('utf8'));
    });
    for (const { route } of context.table.routes) if (route.kind === 'local') addRoute(scope, route, context);
  });
  await fastify.register(async (scope) => {
    // Read line by line, at the pace of the service.
    scope.addContentTypeParser('application/x-ndjson', (_request, payload, done) => done(null, payload));
    for (const { route } of context.table.routes) if (isUpload(route)) addRoute(scope, route, context);
  });
  await fastify.register(async (scope) => {
    // The body of a proxied request is passed on as it comes.
    scope.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
    for (const { route } of context.table.routes) if (route.kind === 'http') addRoute(scope, route, context);
  });

  const ended = () => {
    pending--;
    if (pending > 0) return;
    for (const listener of onIdle) listener();
    onIdle = [];
  };
  const upgrade = webSocketDoor(context);

  return {
    async onUpgrade(incoming, socket, head) {
      pending++;
      const began = performance.now();
      const { route, status } = await upgrade(incoming, socket, head);
      context.metrics.request(route, status, performance.now() - began);
      ended();
    },
    onRequest(req: Guarded, res) {
      pending++;
      const began = performance.now();
      res.on('close', () => {
        const request = req[guarded];
        request?.end();
        const status = res.headersSent ? res.statusCode : CLIENT_GONE;
        context.metrics.request(request?.route, status, performance.now() - began);
        ended();
      });
      try {
        req[guarded] = context.guard.admit(req, res);
        req.url = req[guarded].path;
        dispatch(req, res);
      } catch (error) {
        // Nothing is known of the request but that it is wrong: the connection ends with the answer.
        answerUnguarded(context, req, res, problemOf(error));
      }
    },
    get pending() {
      return pending;
    },
    idle: () => (pending === 0 ? Promise.resolve() : new Promise((resolve) => onIdle.push(resolve))),
    ready: async () => {
      await fastify.ready();
    },
    close: () => fastify.close(),
  };
}

function isUpload(route: TableRoute['route']): boolean {
  return route.kind === 'rpc' && route.target?.kind === 'clientStream';
}

function addRoute(scope: FastifyInstance, route: TableRoute['route'], context: ApplicationContext): void {
  const stages = context.stagesFor(route);
  const handler = context.handlerFor(route);
  scope.route({
    method: route.method,
    url: route.path,
    onRequest(request, reply, done) {
      const incoming = request.raw as unknown as Guarded;
      const edge = incoming[guarded] as GuardedRequest;
      edge.params = request.params as Readonly<Record<string, string>>;
      edge.route = route;
      const exchange = new RoutedExchange(edge, route);
      (request as WithExchange)[exchangeKey] = exchange;
      const passed = () => {
        // Also where a body has no meaning: Fastify reads that of a DELETE before anything else happens.
        if (route.method !== 'GET' && route.method !== 'HEAD') limitBodyTime(context, request, reply);
        done();
      };
      let wait: Promise<void> | undefined;
      try {
        wait = passThrough(stages, exchange, 0);
      } catch (error) {
        done(error as Error);
        return;
      }
      if (wait) wait.then(passed, done);
      else passed();
    },
    handler(request, reply) {
      const exchange = (request as WithExchange)[exchangeKey] as RoutedExchange;
      exchange.request.bodyArrived();
      if (context.draining()) endWith(outgoingOf(reply));
      return handler(exchange, reply, request.body);
    },
  });
}

/** One stage after the other. Waits for those alone that wait themselves: a promise that is there already costs as well. */
function passThrough(stages: readonly Stage[], exchange: Exchange, first: number): Promise<void> | undefined {
  for (let i = first; i < stages.length; i++) {
    const wait = stages[i]?.(exchange);
    if (wait) return wait.then(() => passThrough(stages, exchange, i + 1));
  }
  return undefined;
}

class RoutedExchange implements Exchange {
  readonly request: GuardedRequest;
  readonly route: TableRoute['route'];
  readonly answerHeaders: Exchange['answerHeaders'] = { ...SECURITY_HEADERS };
  principal: Exchange['principal'] = undefined;

  constructor(request: GuardedRequest, route: TableRoute['route']) {
    this.request = request;
    this.route = route;
  }

  get cancellation(): Cancellation {
    return this.request.cancellation;
  }

  get deadlineAt(): number {
    return this.request.deadlineAt;
  }

  onEnd(listener: () => void): void {
    this.request.onEnd(listener);
  }

  begin(): void {
    this.request.begin();
  }
}

const exchangeKey = Symbol('exchange');
type WithExchange = FastifyRequest & { [exchangeKey]?: RoutedExchange };

/** HTTP/2 has no limit of its own for how slowly a body may come. */
function limitBodyTime(context: ApplicationContext, request: FastifyRequest, reply: FastifyReply): void {
  const edge = (request.raw as unknown as Guarded)[guarded] as GuardedRequest;
  edge.awaitBody(context.limits.bodyTimeoutMs, () => {
    const problem = { status: 408, code: 'request-timeout', title: 'The request took too long to arrive' };
    void refuse(context, request, reply, new ProblemError(problem));
  });
}

function notFound(context: ApplicationContext, request: FastifyRequest, reply: FastifyReply): FastifyReply | undefined {
  const edge = (request.raw as unknown as Guarded)[guarded] as GuardedRequest;
  const methods = context.table.methodsFor(edge.path);
  if (methods.length === 0) {
    return refuse(
      context,
      request,
      reply,
      new ProblemError({ status: 404, code: 'not-found', title: 'There is nothing here' }),
    );
  }
  const allow = methods.join(', ');
  if (edge.method === 'OPTIONS' && edge.headers.origin !== undefined) {
    try {
      return reply.code(204).headers(context.preflight(edge, methods)).send();
    } catch (error) {
      return refuse(context, request, reply, problemOf(error));
    }
  }
  const problem = { status: 405, code: 'method-not-allowed', title: 'The method is not allowed', headers: { allow } };
  return refuse(context, request, reply, new ProblemError(problem));
}

/** Fastify's own refusals, in our words: its texts name its options. */
const translations: Readonly<Record<string, Problem>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    status: 415,
    code: 'content-type-unsupported',
    title: 'The content type is not supported',
    detail: 'send application/json, or application/x-ndjson for a stream',
  },
};

function translated(error: unknown): ProblemError {
  const known = translations[(error as { code?: string } | null)?.code ?? ''];
  return known ? new ProblemError(known) : problemOf(error);
}

function refuse(
  context: ApplicationContext,
  request: FastifyRequest,
  reply: FastifyReply,
  error: ProblemError,
): FastifyReply | undefined {
  const exchange = (request as WithExchange)[exchangeKey];
  const edge = (request.raw as unknown as Guarded)[guarded] as GuardedRequest;
  edge.bodyArrived();
  const refusal = edge.expired ? timedOut(error) : error;
  const { problem } = refusal;
  tellRefusal(context.events, edge, refusal, exchange?.principal?.subject);
  // HTTP/2 would keep the stream open for the rest of a body, and the place of the request with it.
  if (problem.status === 408 || problem.status === 413) {
    stopReadingAfter(outgoingOf(reply), request.raw as unknown as EdgeIncoming);
  }
  // A body that nobody has read would be taken for the next request, or sent for nothing.
  if (problem.status === 413 || problem.status === 415 || context.draining()) endWith(outgoingOf(reply));
  return reply.sent ? undefined : sendProblem(request, reply, problem);
}

function outgoingOf({ raw }: FastifyReply): EdgeOutgoing {
  return raw as unknown as EdgeOutgoing;
}

function sendProblem(request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply {
  const exchange = (request as WithExchange)[exchangeKey];
  const edge = (request.raw as unknown as Guarded)[guarded] as GuardedRequest;
  // Fastify ends the connection with each body that it cannot read, also where all of it has come and others wait for their answers.
  reply.removeHeader('connection');
  return reply
    .code(problem.status)
    .headers({ ...SECURITY_HEADERS, ...exchange?.answerHeaders, ...problem.headers })
    .header('x-request-id', edge.id)
    .type('application/problem+json')
    .send(problemBody(problem, edge.id));
}

function answerUnguarded(context: ApplicationContext, req: Guarded, res: EdgeOutgoing, error: ProblemError): void {
  const { problem } = error;
  const id = randomUUID();
  tellUnguarded(context.events, id, req, error);
  const body = problemBody(problem, id);
  const headers = {
    ...SECURITY_HEADERS,
    'content-type': 'application/problem+json',
    'content-length': Buffer.byteLength(body),
    ...problem.headers,
    'x-request-id': id,
  };
  endWith(res);
  (res as { writeHead(status: number, headers: object): unknown }).writeHead(problem.status, headers);
  breakOffUnlessTaken(res, context.limits.headersTimeoutMs);
  res.end(body);
}
