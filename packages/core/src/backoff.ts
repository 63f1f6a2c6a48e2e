import type { Clock } from './clock.js';

export interface BackoffOptions {
  readonly clock: Clock;
  /** The first time to wait, ms. Default 100. */
  readonly firstMs?: number;
  /** The longest time to wait, ms. Default 5,000. */
  readonly maxMs?: number;
  /** For the jitter; default `Math.random`. */
  readonly random?: () => number;
}

/**
 * Times to wait between attempts: each twice the one before, up to a maximum, and of each a random part between half and
 * all, so that a server that comes back is not met by everybody at once.
 */
export class Backoff {
  readonly #clock: Clock;
  readonly #firstMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  readonly #waiting = new Set<() => void>();
  #nextMs: number;

  constructor({ clock, firstMs = 100, maxMs = 5000, random = Math.random }: BackoffOptions) {
    this.#clock = clock;
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
    this.#random = random;
    this.#nextMs = firstMs;
  }

  /** Resolves when the time has passed, the signal aborts or `wake` is called. */
  wait(signal?: AbortSignal): Promise<void> {
    const waitMs = this.#nextMs * (0.5 + this.#random() / 2);
    this.#nextMs = Math.min(this.#maxMs, this.#nextMs * 2);
    if (signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done);
        signal?.removeEventListener('abort', done);
        timer.cancel();
        resolve();
      };
      const timer = this.#clock.after(waitMs, done);
      this.#waiting.add(done);
      signal?.addEventListener('abort', done);
    });
  }

  /** After a success: the next failure waits the first time again. */
  reset(): void {
    this.#nextMs = this.#firstMs;
  }

  /** Something has changed, e.g. a certificate: the next attempt is now, and failures count from anew. */
  wake(): void {
    this.reset();
    for (const done of this.#waiting) done();
  }
}
