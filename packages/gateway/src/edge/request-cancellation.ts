import type { Cancellation } from '@sallyport/core';

/** What a call needs of an AbortSignal, which takes several times as long to make, to listen to and to abort. */
export class RequestCancellation implements Cancellation {
  #aborted: boolean;
  #listeners: (() => void)[] = [];

  constructor(aborted: boolean) {
    this.#aborted = aborted;
  }

  get aborted(): boolean {
    return this.#aborted;
  }

  /** Each listener is called once at most. */
  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.push(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners = this.#listeners.filter((one) => one !== listener);
  }

  abort(): void {
    this.#aborted = true;
    const listeners = this.#listeners;
    this.#listeners = [];
    for (const listener of listeners) listener();
  }
}
