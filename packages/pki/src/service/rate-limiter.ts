import type { Clock } from '@sallyport/core/spi';

export interface RateLimit {
  readonly perMinute: number;
  /** How many may come at once after a silence. */
  readonly burst: number;
}

export interface RateLimiterOptions extends RateLimit {
  readonly clock: Clock;
  /** Beyond it the key that was silent for longest is forgotten: it starts anew, while another limit holds all together. */
  readonly maxKeys: number;
}

interface Bucket {
  tokens: number;
  at: number;
}

/** How often somebody may ask: a token bucket for each key, in a table that does not grow beyond its limit. */
export class RateLimiter {
  readonly #options: RateLimiterOptions;
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: RateLimiterOptions) {
    this.#options = options;
  }

  /** Undefined: go on. Else how long to wait, ms. */
  admit(key: string): number | undefined {
    const { clock, perMinute, burst, maxKeys } = this.#options;
    const now = clock.now();
    const bucket = this.#buckets.get(key) ?? { tokens: burst, at: now };
    const perMs = perMinute / 60_000;
    // A clock that was set back must not take tokens away.
    bucket.tokens = Math.min(burst, bucket.tokens + Math.max(0, now - bucket.at) * perMs);
    bucket.at = now;
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > maxKeys) this.#forgetOldest();
    if (bucket.tokens < 1) return Math.ceil((1 - bucket.tokens) / perMs);
    bucket.tokens -= 1;
    return undefined;
  }

  #forgetOldest(): void {
    for (const key of this.#buckets.keys()) {
      this.#buckets.delete(key);
      return;
    }
  }
}
