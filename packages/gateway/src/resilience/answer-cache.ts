import { createHash } from 'node:crypto';
import { type Clock, durationMs, limit, parseOptions, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import type { Exchange } from '../exchange.js';
import type { Route } from '../routes/route.js';

/** Answers of a GET that are kept in this process and given again. Host, path and query always tell them apart. */
export interface CacheOptions {
  /** How long an answer may be given again, ms; at most 1 hour. An HTTP service may ask for less, or for none at all. */
  readonly ttlMs: number;
  /**
   * What else tells answers apart: `subject` is issuer, subject and scopes of the user and the claims that services are told,
   * and required on routes with `auth`; `header:accept-language` the header of that name. An HTTP service gets no other
   * headers of the client.
   */
  readonly by?: readonly ('subject' | `header:${string}`)[];
  /** Answers that are kept. Default 1,000. */
  readonly maxEntries?: number;
  /** Size of all of them, bytes. Default 16 MiB. */
  readonly maxBytes?: number;
}

const schema = z.strictObject({
  ttlMs: durationMs({ max: 3_600_000 }),
  by: z
    .array(z.string().regex(/^(?:subject|header:[a-z0-9-]+)$/, 'expected subject, or header: and a lower-case name'))
    .default([]),
  maxEntries: limit({ max: 1_000_000 }).default(1000),
  maxBytes: limit({ max: 1024 ** 3 }).default(16 * 1024 ** 2),
});

type ResolvedCache = z.output<typeof schema>;

interface Entry<T> {
  readonly answer: T;
  readonly bytes: number;
  readonly endsAt: number;
}

export interface CacheContext {
  readonly clock: Clock;
  /** Claims of users that services are told. */
  readonly userClaims: readonly string[];
}

/** What is wrong with the cache of a route. `path` is that of the route. */
export function cacheViolations(route: Route, path: string): Violation[] {
  const given = cacheOf(route);
  if (given === undefined) return [];
  const at = `${path}.cache`;
  const { value, violations } = parseOptions(schema as z.ZodType<ResolvedCache>, given, at);
  const found = [...violations];
  if (route.method !== 'GET' || (route.kind === 'rpc' && route.target?.kind !== 'unary')) {
    found.push(violation('option-invalid', at, 'only answers of GET, and to methods with one answer, are kept'));
  }
  if (route.kind === 'http' && route.options.passes?.length) {
    found.push(violation('option-invalid', at, 'answers to what the client itself has shown the service are not kept'));
  }
  if (value && route.options.auth !== undefined && !value.by.includes('subject')) {
    found.push(violation('cache-shared-between-users', `${at}.by`));
  }
  return found;
}

/** Undefined for routes that keep nothing. `sizeOf` is that of an answer, bytes. */
export function answerCache<T>(
  route: Route,
  context: CacheContext,
  sizeOf: (answer: T) => number,
): AnswerCache<T> | undefined {
  const given = cacheOf(route);
  return given === undefined ? undefined : new AnswerCache(schema.parse(given), context, sizeOf);
}

/** Of a text in memory, which has two bytes a character at most. */
export function textBytes(text: string): number {
  return 2 * text.length;
}

function cacheOf({ kind, options }: Route): unknown {
  return kind === 'local' ? undefined : (options as { readonly cache?: unknown } | undefined)?.cache;
}

/** In the order in which answers were kept, which is about that in which they end. The oldest give way to new ones. */
export class AnswerCache<T> {
  readonly ttlMs: number;
  readonly maxBytes: number;
  /** Headers of a request that tell answers apart, lower case. */
  readonly headers: ReadonlySet<string>;
  readonly #options: ResolvedCache;
  readonly #context: CacheContext;
  readonly #sizeOf: (answer: T) => number;
  readonly #entries = new Map<string, Entry<T>>();
  #bytes = 0;

  constructor(options: ResolvedCache, context: CacheContext, sizeOf: (answer: T) => number) {
    this.#options = options;
    this.#context = context;
    this.#sizeOf = sizeOf;
    this.ttlMs = options.ttlMs;
    this.maxBytes = options.maxBytes;
    this.headers = new Set(options.by.flatMap((part) => (part === 'subject' ? [] : [part.slice('header:'.length)])));
  }

  keyOf({ request, principal }: Exchange): string {
    const parts: unknown[] = [request.origin, request.path, [...request.query]];
    for (const name of this.headers) parts.push(request.headers[name] ?? null);
    if (principal && this.#options.by.includes('subject')) {
      const { issuer, subject, scopes, claims } = principal;
      parts.push(issuer, subject, [...scopes].sort(), ...this.#context.userClaims.map((name) => claims[name] ?? null));
    }
    return createHash('sha256').update(JSON.stringify(parts)).digest('base64url');
  }

  find(key: string): T | undefined {
    const now = this.#context.clock.now();
    for (const [old, { endsAt }] of this.#entries) {
      if (endsAt > now) break;
      this.#remove(old);
    }
    const entry = this.#entries.get(key);
    return entry && entry.endsAt > now ? entry.answer : undefined;
  }

  keep(key: string, answer: T, ttlMs = this.ttlMs): void {
    const { maxEntries, maxBytes } = this.#options;
    this.#remove(key);
    const bytes = this.#sizeOf(answer);
    if (bytes > maxBytes) return;
    this.#entries.set(key, { answer, bytes, endsAt: this.#context.clock.now() + ttlMs });
    this.#bytes += bytes;
    for (const old of this.#entries.keys()) {
      if (this.#entries.size <= maxEntries && this.#bytes <= maxBytes) break;
      this.#remove(old);
    }
  }

  #remove(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
  }
}
