import { CallError, type CallOptions, type Service, type ServiceClientOptions, type SpiffeId } from '@sallyport/core';
import type { Exchange } from '../exchange.js';
import { timedOut } from '../problem.js';
import type { Breaker } from '../resilience/breaker.js';
import { problemOf } from './http-status.js';
import { defaultMessage } from './message.js';
import type { Route } from './route.js';
import { contractOfMethod } from './route-table.js';

export type RpcRoute = Extract<Route, { kind: 'rpc' }>;

/** What a service is told beside the message, e.g. who the user is. `server` is who answers, where that is known already. */
export type CallMetadata = (exchange: Exchange, server?: SpiffeId) => CallOptions['metadata'];

export interface RpcContext {
  readonly service: Service;
  readonly upstreamTimeoutMs: number;
  readonly metadata: CallMetadata;
  readonly breaker: Breaker;
}

/** Sends one message to the service and returns its answer. Throws CallError or ProblemError. */
export type UnaryHandler = (exchange: Exchange, body: unknown) => Promise<unknown>;

export function unaryHandler(route: RpcRoute, context: RpcContext): UnaryHandler {
  const { target, options, method } = route;
  const client = context.service.client(contractOfMethod(route), calledBy(options));
  const call = client[target.name] as (message: unknown, options: CallOptions) => Promise<unknown>;
  const message = options.map ?? defaultMessage(target, hasBody(method));
  const timeoutMs = options.timeoutMs ?? context.upstreamTimeoutMs;
  const idempotent = isIdempotent(route);
  const { breaker } = context;
  // Not async: a promise around the one of the call would be three more turns of the microtask queue.
  return (exchange, body) => {
    const sent = message(exchange.request, body, exchange.principal);
    const metadata = context.metadata(exchange);
    const leftMs = exchange.deadlineAt - Date.now();
    const callOptions = {
      deadlineMs: Math.min(timeoutMs, leftMs),
      idempotent,
      signal: exchange.cancellation,
      ...(metadata === undefined ? {} : { metadata }),
    };
    return breaker.run(
      () => call(sent, callOptions),
      (error) => (leftMs < timeoutMs && isLate(error) ? timedOut(problemOf(error)) : error),
    );
  };
}

/** The option of the route, or what its method says (RFC 9110 section 9.2.2; DELETE and PUT are only as good as their service). */
export function isIdempotent({ method, options }: Exclude<Route, { kind: 'local' }>): boolean {
  return options.idempotent ?? (method === 'GET' || method === 'HEAD');
}

function isLate(error: unknown): boolean {
  return error instanceof CallError && error.status === 'DEADLINE_EXCEEDED' && !error.received;
}

/** Which service a route calls, and who that is. */
export function calledBy({ service, identity }: RpcRoute['options']): ServiceClientOptions {
  return { service, ...(identity === undefined ? {} : { identity }) };
}

/** RFC 9110 section 9.3: a body of the others has no defined meaning. */
export function hasBody(method: string): boolean {
  return method === 'POST' || method === 'PUT' || method === 'PATCH';
}
