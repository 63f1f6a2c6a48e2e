import { Backoff, type Clock, type TlsMaterial } from '@sallyport/core/spi';

/** Parts of what is left of the lifetime when a certificate begins to serve; chance chooses between, so that not all come at once. */
const EARLIEST = 0.5;
const LATEST = 0.6;
/** However short-lived the certificates are: no authority is asked more often. */
const MIN_LIFE_MS = 500;
/** The time is looked at this often: a machine may sleep and a clock may be set while a timer runs. */
const LOOK_MS = 30_000;

export interface RenewalOptions {
  readonly clock: Clock;
  /** Ends the loop, and what is under way. */
  readonly signal: AbortSignal;
  /** What serves now. */
  readonly current: () => Pick<TlsMaterial, 'notBefore' | 'notAfter'>;
  /**
   * Obtains new material and puts it in place. Rejects when that failed; is then called again, with backoff. Must settle soon
   * after the signal has aborted.
   */
  readonly renew: () => Promise<void>;
  /** Told of each failure. */
  readonly onFailure: (error: unknown) => void;
  /** For the jitter; default `Math.random`. */
  readonly random?: (() => number) | undefined;
}

/**
 * Renews a certificate until it is told to end: between 50 and 60 % of its lifetime, at once when the clock no longer fits
 * it, again and again after a failure, whether it has expired meanwhile or not. Never two renewals at a time.
 */
export class RenewalLoop {
  readonly #options: RenewalOptions;
  /** Ends the wait for the next renewal, or for the next attempt. */
  #wake: () => void = () => {};
  #asked = false;

  /** Runs from now on. */
  constructor(options: RenewalOptions) {
    this.#options = options;
    void this.#run(options.signal);
  }

  /** Does not wait for the time to come, e.g. because the authority that issued the certificate is to be trusted no longer. */
  renewNow(): void {
    this.#asked = true;
    this.#wake();
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#untilDue(signal);
      await this.#renew(signal);
    }
  }

  async #untilDue(signal: AbortSignal): Promise<void> {
    const { clock, current, random = Math.random } = this.#options;
    const { notBefore, notAfter } = current();
    const begin = clock.now();
    // Not of the whole lifetime: certificates are backdated, short ones by more than they have to live.
    const life = (notAfter - begin) * (EARLIEST + random() * (LATEST - EARLIEST));
    const dueAt = begin + Math.max(life, MIN_LIFE_MS);
    for (let now = begin; now < dueAt && now >= notBefore; now = clock.now()) {
      if (signal.aborted || this.#asked) return;
      await this.#pause(Math.min(dueAt - now, LOOK_MS), signal);
    }
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const backoff = this.#backoff();
    this.#wake = () => backoff.wake();
    while (!signal.aborted) {
      this.#asked = false;
      try {
        return await this.#options.renew();
      } catch (error) {
        if (signal.aborted) return;
        this.#options.onFailure(error);
      }
      await backoff.wait(signal);
    }
  }

  /** In proportion to the lifetime: thirty seconds must not be waited away, and an hour is no reason to hurry. */
  #backoff(): Backoff {
    const { clock, current } = this.#options;
    const { notBefore, notAfter } = current();
    const left = Math.min(notAfter - notBefore, Math.max(notAfter - clock.now(), 0));
    return new Backoff({ clock, firstMs: within(left / 100, 100, 5000), maxMs: within(left / 10, 1000, 60_000) });
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.#options.clock.after(ms, done);
      signal.addEventListener('abort', done);
      this.#wake = done;
    });
  }
}

function within(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
