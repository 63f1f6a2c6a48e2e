import type { Clock, EventSink, Timer } from '@sallyport/core/spi';
import { HttpsJsonError } from './https-json.js';
import {
  type KeyQuery,
  type KeySet,
  KeySetError,
  type KeySource,
  KeysUnavailableError,
  KeyUnknownError,
  type VerifyingKey,
} from './key-set.js';

export interface RemoteKeysOptions {
  /** For events and messages: the issuer. */
  readonly source: string;
  /** Fetches the set. Rejects with HttpsJsonError or KeySetError. */
  readonly fetch: () => Promise<KeySet>;
  /** How often to fetch without being asked, ms. */
  readonly refreshMs: number;
  /** How long keys are believed while no new ones can be had, ms. */
  readonly maxStaleMs: number;
  readonly events: EventSink;
  readonly clock: Clock;
}

/** A flood of made-up key ids must not become a flood of requests to the issuer (T48). */
const UNKNOWN_KEY_COOLDOWN_MS = 30_000;
const RETRY_MS = 30_000;

/** The keys that an issuer publishes, followed: in intervals, and once in a while when a token names one that is not known. */
export class RemoteKeys implements KeySource {
  readonly #options: RemoteKeysOptions;
  #set: KeySet;
  #generation = 0;
  #state: 'fresh' | 'stale' | 'down' = 'fresh';
  #fetchedAt: number;
  #askedForUnknownAt = Number.NEGATIVE_INFINITY;
  #fetching: Promise<void> | undefined;
  #timer: Timer | undefined;
  #closed = false;

  /** Rejects as `fetch` does, unless there is a `fallback` to begin with. */
  static async open(options: RemoteKeysOptions, fallback?: KeySet): Promise<RemoteKeys> {
    try {
      return new RemoteKeys(options, await options.fetch());
    } catch (error) {
      if (!fallback) throw error;
      const keys = new RemoteKeys(options, fallback);
      keys.#become('stale', problemOf(error));
      keys.#await(Math.min(RETRY_MS, options.refreshMs));
      return keys;
    }
  }

  private constructor(options: RemoteKeysOptions, first: KeySet) {
    this.#options = options;
    this.#set = first;
    this.#fetchedAt = options.clock.now();
    this.#await(options.refreshMs);
  }

  get generation(): number {
    return this.#generation;
  }

  async find(header: KeyQuery): Promise<VerifyingKey> {
    if (this.#isTooOld()) throw new KeysUnavailableError(`the keys of ${this.#options.source} are too old`);
    try {
      return await this.#set.find(header);
    } catch (error) {
      if (!(error instanceof KeyUnknownError) || !(await this.#fetchForUnknown())) throw error;
      return this.#set.find(header);
    }
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** False when the issuer was asked a moment ago. */
  async #fetchForUnknown(): Promise<boolean> {
    const now = this.#options.clock.now();
    if (!this.#fetching) {
      if (now - this.#askedForUnknownAt < UNKNOWN_KEY_COOLDOWN_MS) return false;
      this.#askedForUnknownAt = now;
    }
    await this.#refresh();
    return true;
  }

  /** One at a time; never rejects. */
  #refresh(): Promise<void> {
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  async #fetch(): Promise<void> {
    const { fetch, refreshMs, clock } = this.#options;
    try {
      const set = await fetch();
      if (set.text !== this.#set.text) this.#generation++;
      this.#set = set;
      this.#fetchedAt = clock.now();
      this.#become('fresh', '');
      this.#await(refreshMs);
    } catch (error) {
      this.#become(this.#isTooOld() ? 'down' : 'stale', problemOf(error));
      this.#await(Math.min(RETRY_MS, refreshMs));
    }
  }

  #await(ms: number): void {
    this.#timer?.cancel();
    if (!this.#closed) this.#timer = this.#options.clock.after(ms, () => void this.#refresh());
  }

  #isTooOld(): boolean {
    const { clock, maxStaleMs } = this.#options;
    return clock.now() - this.#fetchedAt > maxStaleMs;
  }

  #become(state: 'fresh' | 'stale' | 'down', detail: string): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.events.emit('auth-source-state', { source: this.#options.source, state, detail });
  }
}

function problemOf(error: unknown): string {
  return error instanceof HttpsJsonError || error instanceof KeySetError ? error.message : 'the keys cannot be read';
}
