import type { EventMap, EventType, RegistryContext } from '@sallyport/core';
import { type Clock, systemClock, type Timer } from '@sallyport/core/spi';

/** What a registry is told when it is opened. It asks for no certificate unless the test gives one. */
export function contextOf(service: string, parts: Partial<RegistryContext> = {}): RegistryContext {
  return { service, events: new RecordedEvents(), clock: systemClock, tls: noTls, ...parts };
}

const noTls: RegistryContext['tls'] = {
  current() {
    throw new Error('this registry has no use for a certificate');
  },
  suspended: undefined,
  onChange: () => () => undefined,
  close: () => undefined,
};

/** Keeps what was emitted. */
export class RecordedEvents {
  readonly all: { readonly type: EventType; readonly fields: EventMap[EventType] }[] = [];

  emit<T extends EventType>(type: T, fields: EventMap[T]): void {
    this.all.push({ type, fields });
  }

  of<T extends EventType>(type: T): EventMap[T][] {
    return this.all.filter((event) => event.type === type).map((event) => event.fields as EventMap[T]);
  }
}

/** Real time whose timers stop with `kill()`, like those of a process that was killed. */
export class MortalClock implements Clock {
  #dead = false;

  now(): number {
    return systemClock.now();
  }

  after(ms: number, callback: () => void): Timer {
    return systemClock.after(ms, () => {
      if (!this.#dead) callback();
    });
  }

  kill(): void {
    this.#dead = true;
  }
}

/** Time that passes only when told. */
export class ManualClock implements Clock {
  #now = 1_700_000_000_000;
  readonly #timers = new Set<{ at: number; readonly callback: () => void }>();

  now(): number {
    return this.#now;
  }

  after(ms: number, callback: () => void): Timer {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  /** Moves on and calls back what is due. */
  pass(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers].sort((a, b) => a.at - b.at)) {
      if (timer.at <= this.#now && this.#timers.delete(timer)) timer.callback();
    }
  }

  /** Somebody sets the clock: the timers know nothing of it. */
  jump(ms: number): void {
    this.#now += ms;
    for (const timer of this.#timers) timer.at += ms;
  }

  get timers(): number {
    return this.#timers.size;
  }
}
