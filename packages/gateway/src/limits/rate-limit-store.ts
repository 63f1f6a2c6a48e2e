import type { Clock, EventSink, Violation } from '@sallyport/core/spi';

/** How much of a quota is used after a request was counted. */
export interface Consumption {
  /** Requests in this window, this one among them; may be above the quota. */
  readonly used: number;
  /** Time until the window ends and the count begins anew, ms. */
  readonly resetMs: number;
}

/** Where requests are counted. */
export interface OpenRateLimitStore {
  /**
   * Counts one request. The first one of a key begins its window. Rejects with RateLimitStoreError when it cannot be
   * counted in time.
   */
  count(limit: string, key: string, windowMs: number): Consumption | Promise<Consumption>;
  close(): Promise<void>;
}

export interface RateLimitStoreContext {
  readonly events: EventSink;
  readonly clock: Clock;
}

/** Made by `redis({...})`. One store may serve several limits; it is opened once a gateway. */
export interface RateLimitStore {
  readonly kind: string;
  /** Everything that is wrong with the options; empty when `open` will succeed. Keeps nothing open. */
  check(): Promise<readonly Violation[]>;
  /** Does not wait for a store that is down: what happens then is declared with each limit. */
  open(context: RateLimitStoreContext): Promise<OpenRateLimitStore>;
}

/** The store did not count. */
export class RateLimitStoreError extends Error {
  override readonly name = 'RateLimitStoreError';
}

/** Callers that one limit remembers. Those of one IPv6 network count as one, so this takes as many machines. */
const MAX_KEYS = 100_000;

interface Window {
  used: number;
  readonly endsAt: number;
}

interface Table {
  readonly windows: Map<string, Window>;
  holders: number;
}

/**
 * Counts in this process. All windows of one limit are equally long, so its table is in the order in which they end: the
 * old ones are dropped from its front. When it is full nevertheless, the window that ends first gives way.
 *
 * A table lives for as long as somebody holds it: lists of limits that follow each other hold what they have in common.
 */
export class LocalRateLimits {
  readonly #clock: Clock;
  readonly #tables = new Map<string, Table>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Limits of one name must have windows of one length. */
  open(limits: readonly string[]): OpenRateLimitStore {
    const held = new Map(limits.map((limit) => [limit, this.#hold(limit)]));
    return {
      count: (limit, key, windowMs) => this.#count((held.get(limit) as Table).windows, key, windowMs),
      close: async () => {
        for (const [limit, table] of held) if (--table.holders === 0) this.#tables.delete(limit);
      },
    };
  }

  #hold(limit: string): Table {
    const table = this.#tables.get(limit) ?? { windows: new Map(), holders: 0 };
    table.holders++;
    this.#tables.set(limit, table);
    return table;
  }

  #count(windows: Table['windows'], key: string, windowMs: number): Consumption {
    const now = this.#clock.now();
    for (const [old, { endsAt }] of windows) {
      if (endsAt > now) break;
      windows.delete(old);
    }
    const known = windows.get(key);
    if (known) {
      known.used++;
      return { used: known.used, resetMs: known.endsAt - now };
    }
    if (windows.size >= MAX_KEYS) {
      const [first] = windows.keys();
      windows.delete(first as string);
    }
    windows.set(key, { used: 1, endsAt: now + windowMs });
    return { used: 1, resetMs: windowMs };
  }
}
