import type { Clock } from '../clock.js';
import type { EventMap, EventSink, EventType, SallyportEvent } from './events.js';
import { type Logger, levelOf } from './logger.js';
import { describeEvent } from './sentence.js';

export type EventListener<T extends EventType = EventType> = (event: SallyportEvent<T>) => void;

/** Delivers the events of one service to its listeners and its logger. A listener that throws harms nobody else. */
export class EventBus implements EventSink {
  readonly #service: string;
  readonly #clock: Clock;
  readonly #logger: Logger | undefined;
  readonly #listeners = new Map<EventType | '*', Set<EventListener>>();

  /** `logger` undefined: nothing is printed. */
  constructor(service: string, clock: Clock, logger: Logger | undefined) {
    this.#service = service;
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Listens to one type of event, or to all (`*`). Returns the function that unsubscribes. */
  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  on(type: EventType | '*', listener: EventListener<never>): () => void {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set);
    set.add(listener as EventListener);
    return () => set.delete(listener as EventListener);
  }

  emit<T extends EventType>(type: T, fields: EventMap[T]): void {
    const event = Object.freeze({ type, at: this.#clock.now(), service: this.#service, ...fields }) as SallyportEvent;
    this.#log(event);
    this.#deliver(event, this.#listeners.get(type));
    this.#deliver(event, this.#listeners.get('*'));
  }

  #deliver(event: SallyportEvent, listeners: ReadonlySet<EventListener> | undefined): void {
    if (!listeners) return;
    for (const listener of [...listeners]) {
      // Not delivered as an event itself unless it was another type that failed: no loop through a broken listener.
      guarded(
        () => listener(event),
        (error) => {
          if (event.type === 'listener-failed') return;
          const detail = error instanceof Error ? error.name : typeof error;
          this.emit('listener-failed', { event: event.type, detail });
        },
      );
    }
  }

  #log(event: SallyportEvent): void {
    const logger = this.#logger;
    // A broken log sink must not take the service down with it.
    if (logger) guarded(() => logger[levelOf(event)](event, describeEvent(event)), ignore);
  }
}

/** Calls foreign code: what it throws ends here, and so does what an async function, which the types allow, rejects with. */
function guarded(callback: () => unknown, failed: (error: unknown) => void): void {
  try {
    const result = callback();
    if (result instanceof Promise) result.catch(failed);
  } catch (error) {
    failed(error);
  }
}

function ignore(): void {}
