interface Waiting<T> {
  readonly resolve: (result: IteratorResult<T>) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Messages that arrive by callback, read as an async iterable by one reader. `taken` is called when it took one that had been kept for
 * it.
 */
export class MessageQueue<T> implements AsyncIterableIterator<T> {
  readonly #taken: (message: T) => void;
  readonly #messages: T[] = [];
  #waiting: Waiting<T> | undefined;
  #end: { error: unknown } | undefined;

  constructor(taken: (message: T) => void) {
    this.#taken = taken;
  }

  /** Whether a message would go straight to the reader. */
  get isAwaited(): boolean {
    return this.#waiting !== undefined;
  }

  push(message: T): void {
    if (this.#waiting) this.#settle(({ resolve }) => resolve({ done: false, value: message }));
    else this.#messages.push(message);
  }

  /** No more messages; `error` undefined: the end was good. */
  end(error: unknown): void {
    this.#end ??= { error };
    this.#settle(({ resolve, reject }) =>
      error === undefined ? resolve({ done: true, value: undefined }) : reject(error),
    );
  }

  /** The next message if it is here already. */
  take(): T | undefined {
    const message = this.#messages.shift();
    if (message !== undefined) this.#taken(message);
    return message;
  }

  next(): Promise<IteratorResult<T>> {
    const message = this.take();
    if (message !== undefined) return Promise.resolve({ done: false, value: message });
    if (this.#end) {
      const { error } = this.#end;
      // Told once; a reader that asks again sees the end.
      this.#end = { error: undefined };
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #settle(how: (waiting: Waiting<T>) => void): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) how(waiting);
  }
}
