import { createHash } from 'node:crypto';
import { durationMs, limit, networkOf, parseOptions, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import type { Exchange, Stage } from '../exchange.js';
import { ProblemError } from '../problem.js';
import type { Route } from '../routes/route.js';
import {
  type Consumption,
  type LocalRateLimits,
  type OpenRateLimitStore,
  type RateLimitStore,
  type RateLimitStoreContext,
  RateLimitStoreError,
} from './rate-limit-store.js';

/**
 * What a limit counts by. `address`: the client's, for IPv6 its network of 64 bits, which one customer has; `user`: issuer and
 * subject, whatever has proven them; `key`: those of API keys alone; `route`: each route for itself.
 */
export type RateLimitBy = 'address' | 'user' | 'key' | 'route';

interface CommonRateLimitOptions {
  /** Lower-case letters, digits and `-`: stands in the headers, in events, and in `rateLimit` of routes. */
  readonly name: string;
  /** Several together count each combination for itself. */
  readonly by: RateLimitBy | readonly RateLimitBy[];
  /** Requests in a window. */
  readonly limit: number;
  /** Length of a window, which begins with the first request, ms; at least 1,000. */
  readonly windowMs: number;
  /** Counts every route that names no limits of its own. Left out: only routes that name it. */
  readonly everywhere?: true;
}

/** A quota of requests. Kept in this process, or in a store that several gateways share. */
export type RateLimitOptions = CommonRateLimitOptions &
  (
    | { readonly store?: never; readonly onStoreFailure?: never }
    | {
        readonly store: RateLimitStore;
        /** What happens to requests that cannot be counted: `allow` favours your users, `refuse` what you protect. */
        readonly onStoreFailure: 'allow' | 'refuse';
      }
  );

const BY = ['address', 'user', 'key', 'route'] as const;

const schema = z.array(
  z
    .strictObject({
      name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'expected lower-case letters, digits and -'),
      by: z.union([z.enum(BY), z.array(z.enum(BY)).min(1)]),
      limit: limit({ max: 1_000_000_000 }),
      windowMs: durationMs({ min: 1000 }),
      everywhere: z.literal(true).optional(),
      store: z
        .custom<RateLimitStore>(
          (value) => typeof (value as { open?: unknown } | null)?.open === 'function',
          'expected a store, e.g. redis({...})',
        )
        .optional(),
      onStoreFailure: z.enum(['allow', 'refuse']).optional(),
    })
    .superRefine(({ store, onStoreFailure }, context) => {
      const refuse = (id: string, message: string) =>
        context.addIssue({ code: 'custom', path: ['onStoreFailure'], message, params: { violation: id } });
      if (store && onStoreFailure === undefined) {
        refuse('rate-limit-failure-undeclared', 'nobody has decided what happens when the store is down');
      }
      if (!store && onStoreFailure !== undefined) refuse('option-invalid', 'there is no store that could fail');
    }),
);

type ResolvedRateLimit = z.output<typeof schema>[number];

export interface RateLimitContext extends RateLimitStoreContext {
  /** What the gateway has counted in this process, by the lists of limits before this one as well. */
  readonly local: LocalRateLimits;
  /** Told the name of the limit for each request that is refused by it. */
  readonly onOverQuota: (limit: string) => void;
}

/** The quotas of a gateway, and which routes they count. */
export class RateLimits {
  readonly violations: readonly Violation[];
  readonly #limits: readonly ResolvedRateLimit[];

  constructor(options: unknown, routes: readonly Route[], path: string) {
    const { value, violations } = parseOptions(schema, options ?? [], `${path}.rateLimit`);
    this.#limits = value ?? [];
    this.violations = value ? useViolations(value, routes, path) : violations;
  }

  /** What is wrong with the stores. */
  async check(): Promise<readonly Violation[]> {
    return (await Promise.all(this.#stores().map((store) => store.check()))).flat();
  }

  async open(context: RateLimitContext): Promise<OpenRateLimits> {
    const stores = new Map<RateLimitStore | undefined, OpenRateLimitStore>();
    stores.set(undefined, context.local.open(this.#limits.filter(({ store }) => !store).map(countName)));
    for (const store of this.#stores()) stores.set(store, await store.open(context));
    return new OpenRateLimits(this.#limits, stores, context.onOverQuota);
  }

  #stores(): RateLimitStore[] {
    return [...new Set(this.#limits.flatMap(({ store }) => (store ? [store] : [])))];
  }
}

/** Counts one request of a key. */
type Count = (key: string) => Consumption | Promise<Consumption>;

export class OpenRateLimits {
  readonly #limits: readonly ResolvedRateLimit[];
  readonly #stores: ReadonlyMap<RateLimitStore | undefined, OpenRateLimitStore>;
  readonly #onOverQuota: RateLimitContext['onOverQuota'];

  constructor(
    limits: readonly ResolvedRateLimit[],
    stores: ReadonlyMap<RateLimitStore | undefined, OpenRateLimitStore>,
    onOverQuota: RateLimitContext['onOverQuota'],
  ) {
    this.#limits = limits;
    this.#stores = stores;
    this.#onOverQuota = onOverQuota;
  }

  /** Before anybody is authenticated: checking credentials is work too. */
  stageByAddress(route: Route): Stage | undefined {
    return this.#stage(this.#of(route).filter((limit) => !needsPrincipal(limit)));
  }

  stageByUser(route: Route): Stage | undefined {
    return this.#stage(this.#of(route).filter(needsPrincipal));
  }

  async close(): Promise<void> {
    await Promise.all([...this.#stores.values()].map((store) => store.close()));
  }

  #of({ options }: Route): ResolvedRateLimit[] {
    const named = options.rateLimit;
    return this.#limits.filter(({ name, everywhere }) => named?.includes(name) ?? everywhere === true);
  }

  #stage(limits: readonly ResolvedRateLimit[]): Stage | undefined {
    if (limits.length === 0) return undefined;
    const counters = limits.map((limit) => {
      const store = this.#stores.get(limit.store) as OpenRateLimitStore;
      const name = countName(limit);
      return { limit, count: (key: string) => store.count(name, key, limit.windowMs) };
    });
    return async (exchange) => {
      for (const { limit, count } of counters) await this.#apply(limit, count, exchange);
    };
  }

  async #apply(limit: ResolvedRateLimit, count: Count, exchange: Exchange): Promise<void> {
    const key = keyOf(limit, exchange);
    if (key === undefined) return;
    try {
      const { used, resetMs } = await count(key);
      const resetS = Math.max(1, Math.ceil(resetMs / 1000));
      describe(exchange, limit, Math.max(0, limit.limit - used), resetS);
      if (used > limit.limit) {
        this.#onOverQuota(limit.name);
        throw overQuota(limit, resetS);
      }
    } catch (error) {
      if (!(error instanceof RateLimitStoreError)) throw error;
      if (limit.onStoreFailure !== 'allow') throw cannotCount(limit, error);
    }
  }
}

/**
 * What the counts of a limit go under. In this process they go on when the limit is in the next list too, and begin anew when
 * it counts something else then; `limit` itself may change. A shared store keeps counts by the name alone.
 */
function countName({ name, by, windowMs, store }: ResolvedRateLimit): string {
  return store ? name : `${name} ${[by].flat().join('+')} ${windowMs}`;
}

/** Undefined when the request has nothing that the limit counts by, e.g. no API key. */
function keyOf({ by }: ResolvedRateLimit, { request, route, principal }: Exchange): string | undefined {
  const parts: string[] = [];
  for (const part of typeof by === 'string' ? [by] : by) {
    if (part === 'address') parts.push(networkOf(request.remoteAddress));
    else if (part === 'route') parts.push(`${route.method} ${route.path}`);
    else if (!principal || (part === 'key' && principal.method !== 'api-key')) return undefined;
    else parts.push(principal.issuer, principal.subject);
  }
  // Of one length, without anything in it that a store could misread, and nobody's name.
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64url');
}

/** draft-ietf-httpapi-ratelimit-headers sections 3 and 4. */
function describe({ answerHeaders }: Exchange, limit: ResolvedRateLimit, remaining: number, resetS: number): void {
  const windowS = Math.ceil(limit.windowMs / 1000);
  append(answerHeaders, 'ratelimit-policy', `"${limit.name}";q=${limit.limit};w=${windowS}`);
  append(answerHeaders, 'ratelimit', `"${limit.name}";r=${remaining};t=${resetS}`);
}

function append(headers: Exchange['answerHeaders'], name: string, item: string): void {
  headers[name] = headers[name] === undefined ? item : `${headers[name]}, ${item}`;
}

function overQuota({ name }: ResolvedRateLimit, resetS: number): ProblemError {
  const problem = {
    status: 429,
    code: 'rate-limited',
    title: 'There were too many requests',
    detail: `try again in ${resetS} s`,
    headers: { 'retry-after': String(resetS) },
  };
  return new ProblemError(problem, { reason: `over the limit ${name}` });
}

function cannotCount({ name }: ResolvedRateLimit, cause: RateLimitStoreError): ProblemError {
  const problem = {
    status: 503,
    code: 'rate-limit-unavailable',
    title: 'Requests cannot be counted now',
    headers: { 'retry-after': '1' },
  };
  return new ProblemError(problem, { cause, reason: `the limit ${name} cannot be counted: ${cause.message}` });
}

function needsPrincipal({ by }: ResolvedRateLimit): boolean {
  return by.includes('user') || by.includes('key');
}

/** Names that lead nowhere: whoever wrote them believes in a limit that does not exist. */
function useViolations(limits: readonly ResolvedRateLimit[], routes: readonly Route[], path: string): Violation[] {
  const found: Violation[] = [];
  const byName = new Map(limits.map((limit) => [limit.name, limit]));
  const named = new Set<string>();
  for (const [index, { options }] of routes.entries()) {
    for (const name of Array.isArray(options?.rateLimit) ? options.rateLimit : []) {
      named.add(name);
      const limit = byName.get(name);
      const problem = !limit
        ? `there is no limit ${JSON.stringify(name)}`
        : needsPrincipal(limit) && options.public === true
          ? `${JSON.stringify(name)} counts by user, and nobody is asked on a public route`
          : undefined;
      if (problem) found.push(violation('option-invalid', `${path}.routes[${index}].rateLimit`, problem));
    }
  }
  for (const [index, { name, everywhere }] of limits.entries()) {
    const at = `${path}.rateLimit[${index}]`;
    if (limits.findIndex((other) => other.name === name) !== index) {
      found.push(violation('option-invalid', `${at}.name`, 'another limit has this name'));
    }
    if (everywhere !== true && !named.has(name)) {
      found.push(violation('option-invalid', at, 'it counts nothing: name it in a route, or say everywhere: true'));
    }
  }
  return found;
}
