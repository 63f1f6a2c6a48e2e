import { Backoff } from '../backoff.js';
import { type Clock, MAX_TIMER_MS, systemClock, type Timer } from '../clock.js';
import { CallError } from '../errors.js';
import type { EventSink } from '../events/events.js';
import { type EndpointPolicy, endpointProblem } from './endpoint.js';
import { byId, parseInstanceRecord, sameRecord } from './record.js';
import type { InstanceRecord, RegistryEvent, RegistrySession, RegistryState } from './registry.js';

/** Bounds what a registry that went mad, or was taken over, can make this process hold. */
const MAX_INSTANCES = 10_000;

export interface RegistryViewOptions {
  /** The called service. */
  readonly service: string;
  readonly session: RegistrySession;
  /** Kind of the registry, for events. */
  readonly registry: string;
  readonly events: EventSink;
  readonly clock: Clock;
  /** Which endpoints a record may have. */
  readonly endpoints: EndpointPolicy;
  /** For the jitter; default `Math.random`. */
  readonly random?: () => number;
}

/** What is known of the instances of one called service: the last good answer of the registry, for as long as it takes. */
export interface RegistryView {
  readonly service: string;
  /** `down` until the first answer. */
  readonly state: RegistryState;
  /** Grows with every change of the instances, so that what was made from them can be kept until then. */
  readonly version: number;
  /** Ordered by id; the same array until the version changes. */
  instances(): readonly InstanceRecord[];
  /**
   * Resolves when the registry has answered once. Rejects with CallError DEADLINE_EXCEEDED at `deadlineAt` (ms since the
   * epoch), CANCELLED when the signal aborts, UNAVAILABLE when the view is closed.
   */
  ready(deadlineAt: number, signal?: AbortSignal): Promise<void>;
  /** Called after each change of the instances or of the state. Returns the function that unsubscribes. */
  onChange(listener: () => void): () => void;
  /** Ends the watch; what was known stays readable. Twice is harmless. */
  close(): void;
}

/** Follows a service from now until `close`, beginning again whenever the watch ends or fails. */
export function followService(options: RegistryViewOptions): RegistryView {
  const view = new LastKnownGood(options);
  void view.follow();
  return view;
}

class LastKnownGood implements RegistryView {
  readonly #options: RegistryViewOptions;
  readonly #closing = new AbortController();
  readonly #listeners = new Set<() => void>();
  readonly #waiting = new Set<(error?: CallError) => void>();
  readonly #refused = new Map<string, string>();
  #known = new Map<string, InstanceRecord>();
  #instances: readonly InstanceRecord[] = Object.freeze([]);
  #version = 0;
  #state: RegistryState = 'down';
  #answered = false;
  readonly #backoff: Backoff;

  constructor(options: RegistryViewOptions) {
    this.#options = options;
    const { clock, random } = options;
    this.#backoff = new Backoff({ clock, ...(random ? { random } : {}) });
  }

  get service(): string {
    return this.#options.service;
  }

  get state(): RegistryState {
    return this.#state;
  }

  get version(): number {
    return this.#version;
  }

  instances(): readonly InstanceRecord[] {
    return this.#instances;
  }

  ready(deadlineAt: number, signal?: AbortSignal): Promise<void> {
    if (this.#answered) return Promise.resolve();
    return new Promise((resolve, reject) => {
      let timer: Timer | undefined;
      const settle = (error?: CallError) => {
        this.#waiting.delete(settle);
        timer?.cancel();
        signal?.removeEventListener('abort', cancel);
        if (error) reject(error);
        else resolve();
      };
      const cancel = () => settle(new CallError('CANCELLED', `cancelled while waiting for ${this.#subject()}`));
      if (this.#closing.signal.aborted) return settle(this.#closed());
      if (signal?.aborted) return cancel();
      this.#waiting.add(settle);
      signal?.addEventListener('abort', cancel);
      // Deadlines belong to the wire, so they pass in real time.
      timer = systemClock.after(Math.min(Math.max(0, deadlineAt - Date.now()), MAX_TIMER_MS), () =>
        settle(new CallError('DEADLINE_EXCEEDED', `the deadline passed while waiting for ${this.#subject()}`)),
      );
    });
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#closing.abort();
    this.#listeners.clear();
    for (const settle of this.#waiting) settle(this.#closed());
  }

  async follow(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const detail = await this.#watchOnce();
      if (signal.aborted) return;
      this.#turn(this.#answered ? 'stale' : 'down', detail);
      await this.#backoff.wait(signal);
    }
  }

  /** Gives the reason why the watch ended. */
  async #watchOnce(): Promise<string> {
    const { session, service } = this.#options;
    const { signal } = this.#closing;
    let begun = false;
    try {
      for await (const event of session.watch(service, { signal })) {
        if (signal.aborted) break;
        this.#apply(event);
        // A later snapshot fills a gap; whether the registry is reachable is for its state events to say.
        if (!begun && event.type === 'snapshot') this.#begin();
        begun ||= event.type === 'snapshot';
      }
      return 'the watch ended';
    } catch (error) {
      // Only what we worded ourselves: a foreign message may hold a token.
      return error instanceof CallError ? error.message : 'the watch failed';
    }
  }

  #begin(): void {
    this.#answered = true;
    this.#backoff.reset();
    this.#turn('fresh', 'the registry answered');
    for (const settle of this.#waiting) settle();
  }

  #apply(event: RegistryEvent): void {
    switch (event.type) {
      case 'snapshot':
        this.#replace(event.instances);
        break;
      case 'added':
      case 'changed':
        this.#put(event.instance);
        break;
      case 'removed':
        this.#refused.delete(event.id);
        if (this.#known.delete(event.id)) this.#changed();
        break;
      case 'state':
        this.#turn(event.state, event.detail);
    }
  }

  /** A record that turned bad is no longer there: its former self is not what the registry says. */
  #put(input: InstanceRecord): void {
    const before = this.#known.get(input.id);
    const record = this.#accept(input, this.#known);
    if (before && record && sameRecord(before, record)) return;
    if (record) this.#known.set(record.id, record);
    else if (!this.#known.delete(input.id)) return;
    this.#changed();
  }

  #replace(inputs: readonly InstanceRecord[]): void {
    const known = new Map<string, InstanceRecord>();
    for (const input of inputs) {
      const record = this.#accept(input, known);
      if (record) known.set(record.id, record);
    }
    const before = this.#known;
    this.#known = known;
    if (!sameInstances(before, known)) this.#changed();
  }

  /** The registry is data from outside: what does not fit is dropped and reported, once for each reason. */
  #accept(input: InstanceRecord, known: ReadonlyMap<string, InstanceRecord>): InstanceRecord | undefined {
    const parsed = parseInstanceRecord(input);
    const problem = parsed.ok ? this.#problem(parsed.record, known) : parsed.reason;
    if (parsed.ok && problem === undefined) {
      this.#refused.delete(parsed.record.id);
      return parsed.record;
    }
    this.#refuse(nameOf(input), problem ?? 'it is not a record');
    return undefined;
  }

  #problem(record: InstanceRecord, known: ReadonlyMap<string, InstanceRecord>): string | undefined {
    if (record.service !== this.service) return 'it belongs to another service';
    for (const endpoint of record.endpoints) {
      const problem = endpointProblem(endpoint, this.#options.endpoints);
      if (problem !== undefined) return `its endpoint is ${problem}`;
    }
    return known.size >= MAX_INSTANCES && !known.has(record.id)
      ? `the service has more than ${MAX_INSTANCES} instances`
      : undefined;
  }

  #refuse(name: string | undefined, detail: string): void {
    const key = name ?? detail;
    if (this.#refused.get(key) === detail) return;
    if (this.#refused.size >= MAX_INSTANCES) this.#refused.clear();
    this.#refused.set(key, detail);
    const instance = name ?? '(no valid id)';
    this.#options.events.emit('registry-record-refused', { target: this.service, instance, detail });
  }

  #changed(): void {
    this.#instances = Object.freeze([...this.#known.values()].sort(byId));
    this.#version++;
    this.#notify();
  }

  #turn(state: RegistryState, detail: string): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.events.emit('registry-state', {
      registry: this.#options.registry,
      target: this.service,
      state,
      detail,
    });
    this.#notify();
  }

  #notify(): void {
    for (const listener of this.#listeners) {
      try {
        listener();
      } catch (error) {
        const detail = error instanceof Error ? error.name : 'not an error';
        this.#options.events.emit('listener-failed', { event: 'registry view changed', detail });
      }
    }
  }

  #subject(): string {
    return `the ${this.#options.registry} registry to tell of ${this.service}`;
  }

  #closed(): CallError {
    return new CallError('UNAVAILABLE', `nobody follows ${this.service} in the registry any more`);
  }
}

function sameInstances(a: ReadonlyMap<string, InstanceRecord>, b: ReadonlyMap<string, InstanceRecord>): boolean {
  if (a.size !== b.size) return false;
  for (const [id, record] of a) {
    const other = b.get(id);
    if (other === undefined || !sameRecord(record, other)) return false;
  }
  return true;
}

/** The id, unless the record has none that is fit to print. */
function nameOf(input: unknown): string | undefined {
  const id = typeof input === 'object' && input !== null && 'id' in input ? input.id : undefined;
  return typeof id === 'string' && /^[A-Za-z0-9._-]{1,128}$/.test(id) ? id : undefined;
}
