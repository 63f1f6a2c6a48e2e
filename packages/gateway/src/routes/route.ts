import type { IdentityMatcher, Method } from '@sallyport/core';
import type { AuthHandler, Principal } from '../auth/handler.js';
import type { EdgeRequest } from '../edge-request.js';
import type { CacheOptions } from '../resilience/answer-cache.js';

export type HttpMethod = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** Who may use a route: somebody whom a handler has authenticated, or everybody, said aloud. */
export type RouteAccess =
  | {
      readonly auth: AuthHandler;
      /** All of them are needed (RFC 6749 section 3.3). Left out: none. */
      readonly scopes?: readonly string[];
      /** Further conditions on the verified claims. False is 403. */
      readonly permit?: (principal: Principal, request: EdgeRequest) => boolean;
      readonly public?: never;
    }
  | { readonly public: true; readonly auth?: never; readonly scopes?: never; readonly permit?: never };

export interface CommonRouteOptions {
  /** Longest time from the last byte of the request to the last of the answer, ms, of an HTTP service to its first. Default that of the gateway. */
  readonly timeoutMs?: number;
  /** Largest body, bytes. Default that of the gateway. */
  readonly maxBodyBytes?: number;
  /** Overrides of the gateway's CORS policy. `false`: no other origin reads this route. */
  readonly cors?: false | { readonly origins: readonly string[]; readonly credentials?: boolean };
  /** Names of the gateway's rate limits that count this route. Default: those that say `everywhere`. */
  readonly rateLimit?: readonly string[];
}

export interface RpcRouteOptions<Sent> extends CommonRouteOptions {
  /** Name of the service in the registry that handles the contract. */
  readonly service: string;
  /** SPIFFE ID of the service. Left out: the one that follows from its name. */
  readonly identity?: string;
  /** The message, from the request. Default: path parameters over the JSON body (POST, PUT, PATCH) or the query (others). */
  readonly map?: (request: EdgeRequest, body: unknown, principal: Principal | undefined) => Sent;
  /** Repeating it does no harm: it may be retried. Default: GET and HEAD are, nothing else. */
  readonly idempotent?: boolean;
  /** Gives answers again for a while, for GET. Left out: each request is asked anew. */
  readonly cache?: CacheOptions;
  /**
   * How a stream of answers is written. Default by `Accept`: `text/event-stream`, else NDJSON. Methods that stream both ways
   * are always `websocket`, on a route for GET. Their `timeoutMs` is that of the whole stream, `maxBodyBytes` of one message.
   */
  readonly stream?: 'ndjson' | 'sse' | 'websocket';
}

export interface HttpRouteOptions extends CommonRouteOptions {
  /** `https://10.0.0.7:8443`, or the name of a service in the registry that speaks HTTP. */
  readonly upstream: string;
  /** Who must answer there. Required for addresses; follows from the name for services. */
  readonly expect?: IdentityMatcher;
  /** Repeating it does no harm: it may be sent to another instance when one fails. Default: GET and HEAD are, nothing else. */
  readonly idempotent?: boolean;
  /**
   * Gives answers again for a while, for GET, where the service does not forbid it (RFC 9111: `Cache-Control`, `Vary`,
   * `Set-Cookie`). Not together with `passes`. Left out: each request is sent on.
   */
  readonly cache?: CacheOptions;
  /**
   * Credentials of the client that the service sees; with `cookie` it may set some too, without those that begin with
   * `__Host-`, which are the gateway's. Default: none, API keys included; the service learns of the user from the gateway.
   */
  readonly passes?: readonly ('authorization' | 'cookie')[];
}

/** One line of the list of what can be reached. Made by `route` and `httpRoute`. */
export type Route =
  | {
      readonly kind: 'rpc';
      readonly method: HttpMethod;
      readonly path: string;
      readonly target: Method;
      readonly options: RpcRouteOptions<unknown> & RouteAccess;
    }
  | {
      readonly kind: 'http';
      readonly method: HttpMethod;
      readonly path: string;
      readonly options: HttpRouteOptions & RouteAccess;
    }
  | LocalRoute;

/** What the gateway answers itself, e.g. a step of a login. */
export interface LocalRoute {
  readonly kind: 'local';
  readonly method: HttpMethod;
  readonly path: string;
  readonly options: CommonRouteOptions & RouteAccess;
  /** `form` is the body of a POST; empty where there is none. Throws ProblemError. */
  readonly answer: (request: EdgeRequest, form: URLSearchParams) => Promise<LocalAnswer> | LocalAnswer;
}

export interface LocalAnswer {
  readonly status: number;
  /** Left out: empty. */
  readonly body?: string;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
}

type SentOf<M> =
  M extends Method<infer _Kind, infer Sent, infer _Received, infer _Returned, infer _Result> ? Sent : never;

/**
 * JSON over HTTP in front of one method of a contract. Whatever is wrong with it is told by the gateway's `check()`.
 *
 * @example route('POST', '/v1/orders/:id/charge', Billing.charge, { service: 'billing', auth: users, scopes: ['orders:write'] })
 */
export function route<M extends Method>(
  method: HttpMethod,
  path: string,
  target: M,
  options: RpcRouteOptions<SentOf<M>> & RouteAccess,
): Route {
  return Object.freeze({
    kind: 'rpc',
    method,
    path,
    target,
    options: options as RpcRouteOptions<unknown> & RouteAccess,
  });
}

/** A reverse proxy to an HTTP service over mutual TLS. The path is forwarded as it is. */
export function httpRoute(method: HttpMethod, path: string, options: HttpRouteOptions & RouteAccess): Route {
  return Object.freeze({ kind: 'http', method, path, options });
}
