import type { Socket } from 'node:net';
import {
  type Clock,
  type EventSink,
  every,
  type LocalAddress,
  localAddressText,
  type Timer,
} from '@sallyport/core/spi';
import type { DirectReader } from './direct-reader.js';
import { type HealthCheck, lookAt } from './health-check.js';
import { openSocket } from './open-socket.js';

export type ProgramCheck = HealthCheck & {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** So many good looks in a row make it well, so many bad ones unwell. The first look decides by itself. */
  readonly healthyAfter: number;
  readonly unhealthyAfter: number;
};

export interface ProgramOptions {
  readonly target: LocalAddress;
  readonly check: ProgramCheck;
  readonly connectTimeoutMs: number;
}

/** The program behind the sidecar: connects to it, and knows whether it is well. Raises `program-state` when that changes. */
export class Program {
  readonly #options: ProgramOptions;
  readonly #events: EventSink;
  readonly #onChange: () => void;
  readonly #stopping = new AbortController();
  #patrol: Timer | undefined;
  #checking = false;
  #problem: string | undefined = 'nobody has looked yet';
  #hasLooked = false;
  /** Looks in a row that say otherwise than what is believed. */
  #contradictions = 0;

  constructor(options: ProgramOptions, events: EventSink, onChange: () => void) {
    this.#options = options;
    this.#events = events;
    this.#onChange = onChange;
  }

  /** Why it cannot be reached, or is not well; undefined when it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Resolves when it is known whether the program is there. */
  async start(clock: Clock): Promise<void> {
    await this.#look();
    this.#patrol = every(clock, this.#options.check.intervalMs, () => void this.#look());
  }

  stop(): void {
    this.#patrol?.cancel();
    this.#stopping.abort();
  }

  /** A connection of its own, paused if a reader is given for it. Rejects when the program cannot be reached in time. */
  async connect(signal?: AbortSignal, reader?: DirectReader): Promise<Socket> {
    const { target, check, connectTimeoutMs } = this.#options;
    try {
      const socket = await openSocket(target, connectTimeoutMs, signal, reader);
      // Whoever accepts connections need not be well, unless nothing else is asked of it.
      if (check.kind === 'tcp') this.#learn(undefined);
      return socket;
    } catch (error) {
      // The caller hung up: that tells nothing of the program.
      if (!signal?.aborted) this.#learn((error as Error).message);
      throw error;
    }
  }

  async #look(): Promise<void> {
    if (this.#checking) return;
    this.#checking = true;
    const { target, check } = this.#options;
    try {
      await lookAt(target, check, check.timeoutMs, this.#stopping.signal);
      this.#learn(undefined);
    } catch (error) {
      this.#learn(messageOf(error));
    } finally {
      this.#checking = false;
    }
  }

  /** What one look or connection has shown. */
  #learn(problem: string | undefined): void {
    if (this.#stopping.signal.aborted) return;
    const { healthyAfter, unhealthyAfter } = this.#options.check;
    const isNews = (problem === undefined) !== (this.#problem === undefined);
    this.#contradictions = isNews ? this.#contradictions + 1 : 0;
    const needed = problem === undefined ? healthyAfter : unhealthyAfter;
    if (this.#hasLooked && (isNews ? this.#contradictions < needed : problem === this.#problem)) return;
    this.#hasLooked = true;
    this.#contradictions = 0;
    this.#problem = problem;
    this.#events.emit('program-state', {
      target: localAddressText(this.#options.target),
      state: problem === undefined ? 'up' : 'down',
      detail: problem ?? '',
    });
    this.#onChange();
  }
}

function messageOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code ?? message;
}
