import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Clock } from '@sallyport/core/spi';
import type { Exchange } from '../exchange.js';
import { type AnswerCache, answerCache, type CacheContext, textBytes } from '../resilience/answer-cache.js';
import type { HttpRoute } from './upstreams.js';

/** A whole answer of an HTTP service, as it came. */
export interface KeptAnswer {
  readonly headers: IncomingHttpHeaders;
  /** Of the service that gave it. */
  readonly authority: string;
  readonly body: Buffer;
  /** Seconds since the service has made it (RFC 9111 section 5.1). */
  readonly ageS: number;
}

/** Takes an answer while it goes to the client. */
export interface Recording {
  add(part: Buffer): void;
  /** Keeps it if it has come whole. To be called in any case. */
  end(): void;
}

/** What a route may give again of what an HTTP service has answered. */
export class ProxyCache {
  /** What of the client's request the service may see: nothing else could tell answers apart. */
  readonly headers: ReadonlySet<string>;
  readonly #answers: AnswerCache<KeptAnswer & { readonly since: number }>;
  readonly #clock: Clock;
  /** Of answers that are coming now: they may take as much room as those that are here, and no more. */
  #recordedBytes = 0;

  static of(route: HttpRoute, context: CacheContext): ProxyCache | undefined {
    const answers = answerCache<KeptAnswer & { readonly since: number }>(route, context, sizeOf);
    return answers && new ProxyCache(answers, context.clock);
  }

  private constructor(answers: AnswerCache<KeptAnswer & { readonly since: number }>, clock: Clock) {
    this.#answers = answers;
    this.#clock = clock;
    this.headers = answers.headers;
  }

  find(exchange: Exchange): KeptAnswer | undefined {
    const found = this.#answers.find(this.#answers.keyOf(exchange));
    return found && { ...found, ageS: found.ageS + Math.floor((this.#clock.now() - found.since) / 1000) };
  }

  /** Undefined where the service, or what it has answered with, does not allow it. */
  record(exchange: Exchange, answer: IncomingMessage, authority: string): Recording | undefined {
    const ageS = seconds(answer.headers.age) ?? 0;
    const lifetimeMs = Math.min(this.#answers.ttlMs, lifetimeOf(answer, this.headers) - ageS * 1000);
    if (!(lifetimeMs > 0)) return undefined;
    const key = this.#answers.keyOf(exchange);
    const { headers } = answer;
    const since = this.#clock.now();
    let parts: Buffer[] | undefined = [];
    let bytes = 0;
    const drop = () => {
      this.#recordedBytes -= bytes;
      bytes = 0;
      parts = undefined;
    };
    return {
      add: (part) => {
        if (!parts) return;
        parts.push(part);
        bytes += part.length;
        this.#recordedBytes += part.length;
        if (this.#recordedBytes > this.#answers.maxBytes) drop();
      },
      end: () => {
        // A client may take its time to read: that of the answer runs all the while, and a newer one may have come.
        const leftMs = lifetimeMs - (this.#clock.now() - since);
        const isNewest = (this.#answers.find(key)?.since ?? 0) <= since;
        if (parts && answer.complete && leftMs > 0 && isNewest) {
          this.#answers.keep(key, { headers, authority, body: Buffer.concat(parts), ageS, since }, leftMs);
        }
        drop();
      },
    };
  }
}

function sizeOf({ headers, body }: KeptAnswer): number {
  return body.length + textBytes(JSON.stringify(headers));
}

/**
 * How long a shared cache may give an answer again, counted from when the service made it (RFC 9111 sections 3 and 4.2.1), ms.
 * Infinity where the service says nothing, so that the route decides; 0 where it may not. `keyed` are the headers of the
 * request that tell answers apart.
 */
function lifetimeOf({ statusCode, headers }: IncomingMessage, keyed: ReadonlySet<string>): number {
  if (statusCode !== 200 || headers['set-cookie'] !== undefined) return 0;
  if (list(headers.vary).some((name) => !keyed.has(name))) return 0;
  const directives = new Map(
    list(headers['cache-control']).map((directive) => directive.split('=', 2) as [string, string | undefined]),
  );
  if (['no-store', 'no-cache', 'private'].some((name) => directives.has(name))) return 0;
  for (const name of ['s-maxage', 'max-age']) {
    if (directives.has(name)) return (seconds(directives.get(name)) ?? 0) * 1000;
  }
  if (headers.expires === undefined) return Number.POSITIVE_INFINITY;
  return Date.parse(headers.expires) - Date.parse(headers.date ?? '') || 0;
}

/** The elements of a list, lower case. */
function list(header: string | undefined): string[] {
  const elements = header?.toLowerCase().split(',') ?? [];
  return elements.map((element) => element.trim()).filter((element) => element !== '');
}

function seconds(text: string | undefined): number | undefined {
  return /^\d{1,10}$/.test(text ?? '') ? Number(text) : undefined;
}
