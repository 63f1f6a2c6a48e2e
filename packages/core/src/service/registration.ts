import { Backoff } from '../backoff.js';
import type { Clock } from '../clock.js';
import { CallError, Status } from '../errors.js';
import type { EventSink } from '../events/events.js';
import type { InstanceRecord, InstanceState, RegistrySession } from '../registry/registry.js';

/** How long after its return a registry learns of those that it does not know as they are, at most; ms. */
const RETRY_MS = 1000;

export interface RegistrationContext {
  readonly session: RegistrySession;
  /** Kind of the registry, for events. */
  readonly registry: string;
  readonly events: EventSink;
  readonly clock: Clock;
  /** Called each time the registry has come to know the instance. */
  readonly onRegistered?: () => void;
}

/** The place of one instance in the registry: its record is brought there, kept as it should be, and withdrawn. */
export class Registration {
  readonly #record: Omit<InstanceRecord, 'state'>;
  readonly #context: RegistrationContext;
  readonly #closing = new AbortController();
  /** What others should know. */
  #wanted: InstanceState = 'ready';
  /** What the registry holds; undefined while it does not know the instance. */
  #published: InstanceState | undefined;
  /** While the registry is being told. */
  #settling: Promise<void> | undefined;

  constructor(record: Omit<InstanceRecord, 'state'>, context: RegistrationContext) {
    this.#record = record;
    this.#context = context;
  }

  /**
   * Registers the instance as ready. A registry that is out of reach is no reason to reject: it is asked until it is back. Rejects
   * with CallError when the registry refuses.
   */
  async start(): Promise<void> {
    try {
      await this.#publish();
    } catch (error) {
      if (!isOutOfReach(error)) throw error;
      this.#settle();
    }
  }

  /**
   * `ready`: takes calls, and is registered if need be; `starting`: does not for now, and is not registered for that. Tries until the
   * registry knows.
   */
  mark(state: 'starting' | 'ready'): void {
    this.#wanted = state;
    this.#settle();
  }

  /** Tells the registry that no new call should come, and gives that `spreadMs` to get around. Never rejects. */
  async drain(spreadMs: number): Promise<void> {
    this.#closing.abort();
    await this.#settling;
    if (this.#published === undefined) return;
    const tookCalls = this.#published === 'ready';
    try {
      await this.#context.session.update({ ...this.#record, state: 'draining' });
      if (tookCalls) await new Promise((resolve) => setTimeout(resolve, spreadMs));
    } catch {
      // The registry is out of reach: its TTL will remove us; draining goes on.
    }
  }

  /** Takes the record out of the registry. Never rejects: what cannot be withdrawn ends with its TTL. */
  async withdraw(): Promise<void> {
    this.#closing.abort();
    await this.#settling;
    if (this.#published === undefined) return;
    this.#published = undefined;
    const { session, events } = this.#context;
    try {
      await session.deregister(this.#record.id);
      events.emit('instance-deregistered', { instance: this.#record.id });
    } catch {
      // As above.
    }
  }

  /** Tries no more to bring to the registry what it does not know yet; the session withdraws the rest. */
  close(): void {
    this.#closing.abort();
  }

  async #publish(): Promise<void> {
    const { session, events, onRegistered } = this.#context;
    const state = this.#wanted;
    const isNew = this.#published === undefined;
    if (isNew) await session.register({ ...this.#record, state });
    else await session.update({ ...this.#record, state });
    this.#published = state;
    if (!isNew) return;
    events.emit('instance-registered', { instance: this.#record.id });
    onRegistered?.();
  }

  #settle(): void {
    if (this.#closing.signal.aborted || !this.#isOutdated) return;
    this.#settling ??= this.#bringUpToDate().finally(() => {
      this.#settling = undefined;
      // Something may have changed since the last look.
      this.#settle();
    });
  }

  /** One change at a time, the last wins. A cold start or a change of mood can wait: there is time until the registry is back. */
  async #bringUpToDate(): Promise<void> {
    const backoff = new Backoff({ clock: this.#context.clock, maxMs: RETRY_MS });
    const stopping = this.#closing.signal;
    while (!stopping.aborted && this.#isOutdated) {
      try {
        await this.#publish();
        backoff.reset();
      } catch (error) {
        if (!isOutOfReach(error)) this.#tellRefusal(error);
        await backoff.wait(stopping);
      }
    }
  }

  get #isOutdated(): boolean {
    return this.#published !== this.#wanted && (this.#published !== undefined || this.#wanted === 'ready');
  }

  /** The registry is back and does not want us: for an operator to mend, e.g. by permitting it; so we keep asking. */
  #tellRefusal(error: unknown): void {
    const { events, registry } = this.#context;
    const detail = error instanceof CallError ? error.message : 'registering failed';
    events.emit('registry-state', { registry, target: this.#record.service, state: 'down', detail });
  }
}

function isOutOfReach(error: unknown): boolean {
  return error instanceof CallError && (error.code === Status.UNAVAILABLE || error.code === Status.DEADLINE_EXCEEDED);
}
