import type { Socket } from 'node:net';
import {
  type Clock,
  type EventSink,
  every,
  type LocalAddress,
  localAddressText,
  type Timer,
} from '@sallyport/core/spi';
import { openSocket } from './open-socket.js';

export interface ProgramOptions {
  readonly target: LocalAddress;
  readonly checkIntervalMs: number;
  readonly connectTimeoutMs: number;
}

/** The program behind the sidecar: connects to it, and knows whether it is there. Raises `program-state` when that changes. */
export class Program {
  readonly #options: ProgramOptions;
  readonly #events: EventSink;
  readonly #onChange: () => void;
  readonly #stopping = new AbortController();
  #patrol: Timer | undefined;
  #checking = false;
  #problem: string | undefined = 'nobody has looked yet';

  constructor(options: ProgramOptions, events: EventSink, onChange: () => void) {
    this.#options = options;
    this.#events = events;
    this.#onChange = onChange;
  }

  /** Why it cannot be reached; undefined when it can. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Resolves when it is known whether the program is there. */
  async start(clock: Clock): Promise<void> {
    await this.#check();
    this.#patrol = every(clock, this.#options.checkIntervalMs, () => void this.#check());
  }

  stop(): void {
    this.#patrol?.cancel();
    this.#stopping.abort();
  }

  /** A connection of its own. Rejects when the program cannot be reached in time. */
  async connect(signal?: AbortSignal): Promise<Socket> {
    const { target, connectTimeoutMs } = this.#options;
    try {
      const socket = await openSocket(target, connectTimeoutMs, signal);
      this.#turn(undefined);
      return socket;
    } catch (error) {
      // The caller hung up: that tells nothing of the program.
      if (!signal?.aborted) this.#turn((error as Error).message);
      throw error;
    }
  }

  async #check(): Promise<void> {
    if (this.#checking) return;
    this.#checking = true;
    try {
      const socket = await this.connect(this.#stopping.signal);
      socket.destroy();
    } catch {
      // `connect` has told of it.
    } finally {
      this.#checking = false;
    }
  }

  #turn(problem: string | undefined): void {
    if (this.#problem === problem || this.#stopping.signal.aborted) return;
    this.#problem = problem;
    this.#events.emit('program-state', {
      target: localAddressText(this.#options.target),
      state: problem === undefined ? 'up' : 'down',
      detail: problem ?? '',
    });
    this.#onChange();
  }
}
