import { createHash } from 'node:crypto';
import { type Clock, durationMs, limit, parseOptions, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import type { Exchange } from '../exchange.js';
import type { Route } from '../routes/route.js';

/** Answers of a GET that are kept in this process and given again. Path and query always tell them apart. */
export interface CacheOptions {
  /** How long an answer may be given again, ms; at most 1 hour. */
  readonly ttlMs: number;
  /**
   * What else tells answers apart: `subject` is issuer, subject and scopes of the user, and required on routes with `auth`;
   * `header:accept-language` the header of that name.
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

interface Entry {
  readonly answer: string;
  readonly endsAt: number;
}

/** What is wrong with the cache of a route. `path` is that of the route. */
export function cacheViolations(route: Route, path: string): Violation[] {
  const given = cacheOf(route);
  if (given === undefined) return [];
  const at = `${path}.cache`;
  const { value, violations } = parseOptions(schema as z.ZodType<ResolvedCache>, given, at);
  const found = [...violations];
  if (route.kind !== 'rpc' || route.method !== 'GET' || route.target?.kind !== 'unary') {
    found.push(violation('option-invalid', at, 'only answers of GET to methods with one answer are kept'));
  }
  if (value && route.options.auth !== undefined && !value.by.includes('subject')) {
    found.push(violation('cache-shared-between-users', `${at}.by`));
  }
  return found;
}

/** Undefined for routes that keep nothing. */
export function answerCache(route: Route, clock: Clock): AnswerCache | undefined {
  const given = cacheOf(route);
  return given === undefined ? undefined : new AnswerCache(schema.parse(given), clock);
}

function cacheOf({ kind, options }: Route): unknown {
  return kind === 'local' ? undefined : (options as { readonly cache?: unknown } | undefined)?.cache;
}

/** All answers live equally long, so the table is in the order in which they end. The oldest give way to new ones. */
export class AnswerCache {
  readonly #options: ResolvedCache;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(options: ResolvedCache, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
  }

  keyOf({ request, principal }: Exchange): string {
    const parts: unknown[] = [request.path, [...request.query]];
    for (const part of this.#options.by) {
      if (part === 'subject')
        parts.push(principal && [principal.issuer, principal.subject, [...principal.scopes].sort()]);
      else parts.push(request.headers[part.slice('header:'.length)] ?? null);
    }
    return createHash('sha256').update(JSON.stringify(parts)).digest('base64url');
  }

  find(key: string): string | undefined {
    const now = this.#clock.now();
    for (const [old, { endsAt }] of this.#entries) {
      if (endsAt > now) break;
      this.#remove(old);
    }
    return this.#entries.get(key)?.answer;
  }

  keep(key: string, answer: string): void {
    const { ttlMs, maxEntries, maxBytes } = this.#options;
    this.#remove(key);
    if (sizeOf(answer) > maxBytes) return;
    this.#entries.set(key, { answer, endsAt: this.#clock.now() + ttlMs });
    this.#bytes += sizeOf(answer);
    for (const old of this.#entries.keys()) {
      if (this.#entries.size <= maxEntries && this.#bytes <= maxBytes) break;
      this.#remove(old);
    }
  }

  #remove(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#entries.delete(key);
    this.#bytes -= sizeOf(entry.answer);
  }
}

/** Of a text in memory, which has two bytes a character at most. */
function sizeOf(answer: string): number {
  return 2 * answer.length;
}
