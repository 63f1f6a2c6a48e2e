import type { Clock } from '@sallyport/core/spi';

/** A signal that aborts with another one, or after some time of its own. Release it with `end()`. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #parent: AbortSignal;
  readonly #abort = () => this.#controller.abort();
  readonly #cancelTimer: () => void;
  #passed = false;

  constructor(parent: AbortSignal, clock: Clock, ms: number) {
    this.#parent = parent;
    const timer = clock.after(ms, () => {
      this.#passed = true;
      this.#abort();
    });
    this.#cancelTimer = () => timer.cancel();
    parent.addEventListener('abort', this.#abort);
    if (parent.aborted) this.#abort();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether it was the time that ended it. */
  get passed(): boolean {
    return this.#passed;
  }

  /** What was waited for is there: from now on it only follows the other signal. */
  met(): void {
    this.#cancelTimer();
  }

  end(): void {
    this.#cancelTimer();
    this.#parent.removeEventListener('abort', this.#abort);
  }
}
