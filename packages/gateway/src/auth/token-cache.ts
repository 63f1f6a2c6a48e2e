interface Entry<T> {
  readonly value: T;
  readonly until: number;
  /** When it was moved to the end of the entries. */
  readonly usedAt: number;
}

/** How exactly the order of use is kept, ms: to move an entry costs more than to find it. */
const ORDER_MS = 1000;

/** Verified things by the hash of what proved them: bounded, the least used forgotten first, none kept past its time. */
export class TokenCache<T> {
  readonly #maxEntries: number;
  readonly #entries = new Map<string, Entry<T>>();

  constructor(maxEntries: number) {
    this.#maxEntries = maxEntries;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** `now`: ms since the epoch. */
  get(key: string, now: number): T | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    const isCurrent = entry.until > now;
    if (isCurrent && now - entry.usedAt < ORDER_MS) return entry.value;
    this.#entries.delete(key);
    if (!isCurrent) return undefined;
    this.#entries.set(key, { ...entry, usedAt: now });
    return entry.value;
  }

  set(key: string, value: T, until: number): void {
    this.#entries.delete(key);
    this.#entries.set(key, { value, until, usedAt: 0 });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxEntries) break;
      this.#entries.delete(oldest);
    }
  }

  clear(): void {
    this.#entries.clear();
  }
}
