/** What may be spent at once, retries. */
const MAX_SAVED = 10;
/** A retry for so many requests. */
const REQUESTS_PER_RETRY = 10;

/** Bounds retries to a tenth of the requests, and a few at first: servers that fail for everybody must not get twice the load. */
export class RetryBudget {
  #saved = MAX_SAVED;

  /** A request was answered, or at least begun. */
  earn(): void {
    this.#saved = Math.min(MAX_SAVED, this.#saved + 1 / REQUESTS_PER_RETRY);
  }

  /** False: there is no retry left. */
  spend(): boolean {
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }
}
