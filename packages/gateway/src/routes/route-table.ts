import { type AnyContract, parseSpiffeId } from '@sallyport/core';
import { durationMs, limit, parseOptions, serviceNameSchema, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import { upstreamViolations } from '../proxy/upstream-address.js';
import { cacheViolations } from '../resilience/answer-cache.js';
import type { HttpMethod, Route } from './route.js';
import { matches, overlap, paramsOf, parseRoutePath, type RouteSegment } from './route-path.js';

export interface TableRoute {
  readonly route: Route;
  readonly segments: readonly RouteSegment[];
}

export interface RouteMatch {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

export interface RouteTable {
  readonly routes: readonly TableRoute[];
  readonly violations: readonly Violation[];
  /** The methods that some route has for the path: `Allow` of a 405. Empty: there is no such path. */
  methodsFor(path: string): readonly HttpMethod[];
  /** The route of a canonical path; HEAD finds that of GET. */
  find(method: string, path: string): Route | undefined;
  /** The same, with its parameters. */
  match(method: string, path: string): RouteMatch | undefined;
}

const METHODS: readonly HttpMethod[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'];

/** Checks the list of routes as a whole; one that is wrong is a violation, never left out. */
export function routeTable(given: readonly Route[], path: string): RouteTable {
  const violations: Violation[] = [];
  const routes: TableRoute[] = [];
  for (const [index, route] of given.entries()) {
    const at = `${path}[${index}]`;
    violations.push(...routeViolations(route, at));
    try {
      const segments = parseRoutePath(route.path);
      const hidden = routes.find((other) => sameMethod(other.route, route) && overlap(other.segments, segments));
      if (hidden) {
        const problem = `${route.method} ${route.path} and ${hidden.route.method} ${hidden.route.path} match the same requests`;
        violations.push(violation('route-conflict', at, problem));
      }
      routes.push({ route, segments });
    } catch (error) {
      violations.push(violation('route-invalid', `${at}.path`, (error as Error).message));
    }
  }
  return {
    routes,
    violations,
    find: (method, asked) =>
      routes.find(({ route, segments }) => isFor(route, method) && matches(segments, asked))?.route,
    match(method, asked) {
      const found = routes.find(({ route, segments }) => isFor(route, method) && matches(segments, asked));
      return found && { route: found.route, params: paramsOf(found.segments, asked) };
    },
    methodsFor: (asked) => [
      ...new Set(
        routes
          .filter(({ segments }) => matches(segments, asked))
          .flatMap(({ route }): HttpMethod[] => (route.method === 'GET' ? ['GET', 'HEAD'] : [route.method])),
      ),
    ],
  };
}

/** A route for GET is one for HEAD as well (RFC 9110 section 9.3.2). */
function sameMethod(a: Route, b: Route): boolean {
  return isFor(a, b.method) || isFor(b, a.method);
}

function isFor({ method }: Route, asked: string): boolean {
  return method === asked || (method === 'GET' && asked === 'HEAD');
}

/** What is `unknown` here is checked with more than a schema, below or by the part that it is for. */
const commonOptions = {
  auth: z.unknown().optional(),
  public: z.unknown().optional(),
  scopes: z.array(z.string().min(1)).optional(),
  permit: z.custom((value) => typeof value === 'function', 'expected a function').optional(),
  timeoutMs: durationMs().optional(),
  maxBodyBytes: limit().optional(),
  cors: z.unknown().optional(),
  rateLimit: z.array(z.string()).optional(),
};
const optionSchemas = {
  local: z.strictObject(commonOptions),
  rpc: z.strictObject({
    ...commonOptions,
    service: z.unknown().optional(),
    identity: z
      .string()
      .refine(isSpiffeId, 'expected a SPIFFE ID, e.g. spiffe://prod.acme/ns/shop/sa/orders')
      .optional(),
    map: z.custom((value) => typeof value === 'function', 'expected a function').optional(),
    idempotent: z.boolean().optional(),
    cache: z.unknown().optional(),
    stream: z.enum(['ndjson', 'sse', 'websocket']).optional(),
  }),
  http: z.strictObject({
    ...commonOptions,
    upstream: z.unknown().optional(),
    expect: z.unknown().optional(),
    idempotent: z.boolean().optional(),
    cache: z.unknown().optional(),
    passes: z.unknown().optional(),
  }),
};

function routeViolations(route: Route, at: string): Violation[] {
  const { options } = route;
  const found: Violation[] = [...parseOptions<unknown>(optionSchemas[route.kind], options ?? {}, at).violations];
  if (!METHODS.includes(route.method)) {
    found.push(violation('route-invalid', `${at}.method`, `expected one of ${METHODS.join(', ')}`));
  }
  const access = (options ?? {}) as {
    auth?: { check?: unknown };
    public?: unknown;
    scopes?: unknown;
    permit?: unknown;
  };
  if (access.auth === undefined && access.public !== true) found.push(violation('route-access-missing', at));
  if (access.auth !== undefined && access.public !== undefined) {
    found.push(violation('option-invalid', `${at}.public`, 'a route that asks for a user is not public'));
  }
  if (access.auth !== undefined && typeof access.auth?.check !== 'function') {
    found.push(violation('option-invalid', `${at}.auth`, 'expected a handler, e.g. jwt({...})'));
  }
  if (access.public === true && (access.scopes !== undefined || access.permit !== undefined)) {
    found.push(violation('option-invalid', `${at}.scopes`, 'nobody is asked on a public route, so nobody has scopes'));
  }
  if (route.kind === 'rpc') found.push(...rpcViolations(route, at));
  found.push(...cacheViolations(route, at));
  if (route.kind === 'http') found.push(...httpViolations(route, at));
  return found;
}

function isSpiffeId(text: string): boolean {
  try {
    parseSpiffeId(text);
    return true;
  } catch {
    return false;
  }
}

const methodSchema = z.looseObject({ kind: z.string(), path: z.string(), contract: z.string(), name: z.string() });

function rpcViolations(route: Extract<Route, { kind: 'rpc' }>, at: string): Violation[] {
  const found: Violation[] = [];
  if (!methodSchema.safeParse(route.target).success) {
    const problem = 'there is no such method in the contract: pass one of its methods, e.g. Billing.charge';
    found.push(violation('route-method-unknown', `${at}.target`, problem));
  }
  const kindProblem = streamProblem(route);
  if (kindProblem) found.push(violation('option-invalid', `${at}.${kindProblem.option}`, kindProblem.problem));
  const { service } = route.options ?? {};
  if (service === undefined) found.push(violation('option-missing', `${at}.service`));
  else if (!serviceNameSchema.safeParse(service).success) {
    found.push(violation('option-invalid', `${at}.service`, 'expected the name of a service, e.g. billing'));
  }
  return found;
}

function httpViolations({ options }: Extract<Route, { kind: 'http' }>, at: string): Violation[] {
  const found = upstreamViolations(options?.upstream, options?.expect, at);
  const passes: unknown = options?.passes ?? [];
  if (!Array.isArray(passes) || passes.some((name) => name !== 'authorization' && name !== 'cookie')) {
    const problem = 'expected authorization or cookie: whatever else names the user comes from the gateway alone';
    found.push(violation('option-invalid', `${at}.passes`, problem));
  }
  return found;
}

/** What the kind of the method does not allow. */
function streamProblem({ method, target, options }: Extract<Route, { kind: 'rpc' }>) {
  const stream = options?.stream;
  switch (target?.kind) {
    case 'bidi':
      if (method !== 'GET') return { option: 'method', problem: 'a WebSocket begins with GET' };
      return stream === undefined || stream === 'websocket'
        ? undefined
        : { option: 'stream', problem: 'messages in both directions need a WebSocket' };
    case 'serverStream':
      return stream === 'websocket' ? { option: 'stream', problem: 'a stream of answers is ndjson or sse' } : undefined;
    case 'clientStream':
      if (method !== 'POST' && method !== 'PUT' && method !== 'PATCH') {
        return { option: 'method', problem: 'messages of the client need a body: POST, PUT or PATCH' };
      }
      return stream === undefined ? undefined : { option: 'stream', problem: 'the answer is one message' };
    default:
      return stream === undefined ? undefined : { option: 'stream', problem: 'the method has one answer, no stream' };
  }
}

/** The contract of one method alone: what a client needs for it. */
export function contractOfMethod({ target }: Extract<Route, { kind: 'rpc' }>): AnyContract {
  return { name: target.contract, methods: { [target.name]: target } };
}
