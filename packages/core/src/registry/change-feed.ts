import type { InstanceRecord, RegistryEvent } from './registry.js';

const MAX_WAITING_EVENTS = 1024;

export interface ChangeFeedOptions {
  readonly service: string;
  /**
   * The complete set at this moment, ordered by id; asked for when the reader begins and after it fell behind. Undefined
   * while nothing is known: the reader then waits until `wake`.
   */
  readonly snapshot: () => readonly InstanceRecord[] | undefined;
  /** The feed is a member of these sets from its beginning to its end. */
  readonly memberOf: readonly Set<ChangeFeed>[];
  readonly signal?: AbortSignal | undefined;
}

/**
 * One reader of the changes of a service. It never loses the end state and never grows without bound: a reader that falls
 * behind finds one fresh snapshot in place of the backlog. The first event is a snapshot for the same reason: who begins
 * is behind.
 */
export class ChangeFeed implements AsyncIterator<RegistryEvent, undefined> {
  readonly service: string;
  readonly #options: ChangeFeedOptions;
  #waiting: RegistryEvent[] = [];
  #behind = true;
  #ended: boolean;
  #readers: ((result: IteratorResult<RegistryEvent, undefined>) => void)[] = [];

  constructor(options: ChangeFeedOptions) {
    this.service = options.service;
    this.#options = options;
    this.#ended = options.signal?.aborted ?? false;
    if (this.#ended) return;
    options.signal?.addEventListener('abort', this.#onAbort);
    for (const set of options.memberOf) set.add(this);
  }

  push(event: RegistryEvent): void {
    if (this.#ended) return;
    if (this.#waiting.length >= MAX_WAITING_EVENTS) this.#fallBehind();
    // The snapshot that is due will hold the change; what it cannot hold is the state.
    if (this.#behind && event.type !== 'state') return;
    this.#waiting.push(event);
    this.wake();
  }

  /** Serves a waiting reader when there is something for it now, e.g. the first snapshot. */
  wake(): void {
    while (this.#readers.length > 0) {
      const event = this.#take();
      if (event === undefined && !this.#ended) return;
      this.#readers.shift()?.(event === undefined ? { done: true, value: undefined } : { done: false, value: event });
    }
  }

  next(): Promise<IteratorResult<RegistryEvent, undefined>> {
    return new Promise((resolve) => {
      this.#readers.push(resolve);
      this.wake();
    });
  }

  async return(): Promise<IteratorResult<RegistryEvent, undefined>> {
    this.end();
    return { done: true, value: undefined };
  }

  /** Wakes the reader with the end of the iteration; twice is harmless. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#waiting = [];
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    for (const set of this.#options.memberOf) set.delete(this);
    this.wake();
  }

  #onAbort = () => this.end();

  #fallBehind(): void {
    const state = this.#waiting.findLast((event) => event.type === 'state');
    this.#waiting = state ? [state] : [];
    this.#behind = true;
  }

  #take(): RegistryEvent | undefined {
    if (this.#ended) return undefined;
    if (!this.#behind) return this.#waiting.shift();
    const instances = this.#options.snapshot();
    if (instances === undefined) return undefined;
    this.#behind = false;
    return { type: 'snapshot', instances };
  }
}
