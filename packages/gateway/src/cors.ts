import { durationMs, isLoopback, parseOptions, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import type { EdgeRequest } from './edge-request.js';
import type { Stage } from './exchange.js';
import { ProblemError } from './problem.js';
import type { HttpMethod, Route } from './routes/route.js';

/** Which pages of other origins may call, and read what they get (Fetch standard). Left out altogether: none. */
export interface CorsOptions {
  /** Exact origins: `https://shop.example`, `https://admin.example:8443`. There are no patterns, and `*` is refused. */
  readonly origins: readonly string[];
  /** Cookies and client certificates go along. Default false. */
  readonly credentials?: boolean;
  /** Request headers that a page may set. Default `content-type`, `authorization` and `dpop`. */
  readonly requestHeaders?: readonly string[];
  /** Answer headers that a page may read beside the few that it always may. Default `x-request-id` and `retry-after`. */
  readonly exposedHeaders?: readonly string[];
  /** How long a browser may remember the answer to a preflight, ms. Default 10 minutes, at most 2 hours. */
  readonly maxAgeMs?: number;
}

interface Policy {
  readonly origins: ReadonlySet<string>;
  readonly credentials: boolean;
}

export type PreflightAnswer = Readonly<Record<string, string>>;

const headerName = z.string().regex(/^[a-z0-9-]+$/, 'expected a lower-case header name');
export const corsSchema = z.strictObject({
  origins: z.array(z.string()).min(1),
  credentials: z.boolean().default(false),
  requestHeaders: z.array(headerName).default(['content-type', 'authorization', 'dpop']),
  exposedHeaders: z.array(headerName).default(['x-request-id', 'retry-after']),
  maxAgeMs: durationMs({ max: 2 * 3_600_000 }).default(600_000),
});

type ResolvedCors = z.output<typeof corsSchema>;

/** Decides about other origins, by exact comparison alone. */
export class Cors {
  readonly violations: readonly Violation[];
  readonly #options: ResolvedCors | undefined;
  readonly #default: Policy;
  readonly #perRoute = new Map<Route, Policy>();

  /** `options` undefined: no other origin, except where a route says so. */
  constructor(options: unknown, routes: readonly Route[], path: string) {
    const { value, violations } = parseOptions(
      corsSchema,
      options ?? { origins: ['https://none.invalid'] },
      `${path}.cors`,
    );
    this.#options = value as ResolvedCors | undefined;
    const found: Violation[] = [
      ...violations,
      ...originViolations(this.#options?.origins ?? [], `${path}.cors.origins`),
    ];
    this.#default = options === undefined ? nobody : policyOf(this.#options ?? { origins: [] });
    for (const [index, route] of routes.entries()) {
      const own = route.options?.cors;
      if (own === undefined) continue;
      this.#perRoute.set(route, own === false ? nobody : policyOf(own));
      if (own !== false) found.push(...originViolations(own.origins, `${path}.routes[${index}].cors.origins`));
    }
    this.violations = found;
  }

  /** Says who may read the answer, and ends requests of pages that may not: what they cannot read they must not cause. */
  stageFor(route: Route): Stage {
    const policy = this.#perRoute.get(route) ?? this.#default;
    const exposed = this.#options?.exposedHeaders.join(', ') ?? '';
    return ({ request, answerHeaders }) => {
      // On every answer, also those that a cache gives to a page of another origin next.
      answerHeaders.vary = 'Origin';
      const { origin } = request.headers;
      if (origin === undefined || origin === request.origin) return;
      if (!policy.origins.has(origin)) throw foreign(origin);
      answerHeaders['access-control-allow-origin'] = origin;
      if (policy.credentials) answerHeaders['access-control-allow-credentials'] = 'true';
      if (exposed !== '') answerHeaders['access-control-expose-headers'] = exposed;
    };
  }

  /** Answers OPTIONS (Fetch standard, CORS-preflight). Throws ProblemError 403 for whom it says nothing to. */
  preflight(request: EdgeRequest, route: Route | undefined, methods: readonly HttpMethod[]): PreflightAnswer {
    const {
      origin,
      'access-control-request-method': method,
      'access-control-request-headers': headers = '',
    } = request.headers;
    const policy = (route && this.#perRoute.get(route)) ?? this.#default;
    const vary = 'Origin, Access-Control-Request-Method, Access-Control-Request-Headers';
    if (origin === undefined || method === undefined || !policy.origins.has(origin)) throw foreign(origin, vary);
    const allowed = this.#options?.requestHeaders ?? [];
    const asked = headers.split(',').map((name) => name.trim().toLowerCase());
    return {
      vary,
      'access-control-allow-origin': origin,
      'access-control-allow-methods': methods.join(', '),
      'access-control-allow-headers': asked.filter((name) => allowed.includes(name)).join(', '),
      'access-control-max-age': String(Math.floor((this.#options?.maxAgeMs ?? 0) / 1000)),
      ...(policy.credentials ? { 'access-control-allow-credentials': 'true' } : {}),
    };
  }
}

const nobody: Policy = { origins: new Set(), credentials: false };

function policyOf({
  origins,
  credentials = false,
}: {
  readonly origins: readonly string[];
  readonly credentials?: boolean;
}): Policy {
  return { origins: new Set(origins), credentials };
}

function originViolations(origins: readonly string[], path: string): Violation[] {
  return (Array.isArray(origins) ? origins : []).flatMap((origin, index) => {
    const problem = originProblem(origin);
    return problem === undefined ? [] : [violation('cors-origin-unsafe', `${path}[${index}]`, problem)];
  });
}

/** Why an entry is none that a browser would send, or one that everybody can send. */
function originProblem(origin: unknown): string | undefined {
  if (typeof origin !== 'string') return 'expected a text: patterns let in origins that nobody thought of';
  if (origin.includes('*')) return 'there are no wildcards: every page in the world could read the answers';
  if (origin === 'null') return 'every sandboxed frame and every local file has the origin null';
  let url: URL;
  try {
    url = new URL(origin);
  } catch {
    return 'expected scheme, host and port, e.g. https://shop.example';
  }
  if (url.origin !== origin) return `browsers would send ${JSON.stringify(url.origin)}`;
  if (url.protocol === 'https:') return undefined;
  if (url.protocol === 'http:' && isLoopback(url.hostname.replace(/^\[|\]$/g, ''))) return undefined;
  return 'a page that came in clear text can have been changed by anybody on its way';
}

function foreign(origin: string | undefined, vary = 'Origin'): ProblemError {
  const problem = {
    status: 403,
    code: 'origin-forbidden',
    title: 'Pages of this origin may not do this',
    headers: { vary },
  };
  return new ProblemError(problem, {
    reason: `origin ${JSON.stringify((origin ?? 'none').slice(0, 200))} is not allowed`,
  });
}
