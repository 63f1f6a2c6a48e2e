import type { Clock, Timer } from '../clock.js';

/** The second file of a pair follows the first: until then there is nothing to complain of. */
const QUICK_RETRY_MS = 200;
const QUICK_RETRIES = 5;

export interface WebFollowerOptions {
  readonly clock: Clock;
  /** How often to try again after the quick retries: time alone can mend a certificate that is not valid yet. */
  readonly retryMs: number;
  /** Loads the files and takes them into use. Resolves with what is wrong with them; the old ones serve on then. */
  readonly adopt: () => Promise<string | undefined>;
  /** Called once for each thing that stays wrong. */
  readonly onFailed: (problem: string) => void;
}

/** Keeps the certificates of a public door in step with their files, one change after the other. */
export class WebFollower {
  readonly #options: WebFollowerOptions;
  #failures = 0;
  #reported: string | undefined;
  #retry: Timer | undefined;
  #turn: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(options: WebFollowerOptions) {
    this.#options = options;
  }

  /** Never throws. */
  filesChanged(): void {
    this.#failures = 0;
    this.#follow();
  }

  close(): void {
    this.#isClosed = true;
    this.#retry?.cancel();
  }

  #follow(): void {
    this.#turn = this.#turn.then(() => this.#adopt());
  }

  async #adopt(): Promise<void> {
    if (this.#isClosed) return;
    this.#retry?.cancel();
    const problem = await this.#problem();
    if (this.#isClosed) return;
    if (problem !== undefined) this.#failed(problem);
    else this.#reported = undefined;
  }

  async #problem(): Promise<string | undefined> {
    try {
      return await this.#options.adopt();
    } catch (error) {
      // OpenSSL refuses what it was given although it could be parsed.
      return error instanceof Error ? error.message : 'they cannot be used';
    }
  }

  #failed(problem: string): void {
    const { clock, retryMs, onFailed } = this.#options;
    const isSettled = ++this.#failures > QUICK_RETRIES;
    if (isSettled && problem !== this.#reported) {
      this.#reported = problem;
      onFailed(problem);
    }
    this.#retry = clock.after(isSettled ? retryMs : QUICK_RETRY_MS, () => this.#follow());
  }
}
