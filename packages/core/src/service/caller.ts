import type { Clock } from '../clock.js';
import { CallError, Status } from '../errors.js';
import type { IdentityMatcher } from '../identity/matcher.js';
import type { Endpoint, InstanceRecord } from '../registry/registry.js';
import type { RegistryView } from '../registry/view.js';
import { type Filter, readyOnly } from '../selector/filters.js';
import type { Selector } from '../selector/selector.js';
import type { Connection, ConnectionPool, ConnectTarget } from '../transport/transport.js';

/** How long an instance that could not be reached is passed over while others are there, ms. */
const PASS_OVER_MS = 1000;

/** An instance that calls may go to, with what the caller knows of it. */
export interface Candidate {
  instance: InstanceRecord;
  /** Calls under way. */
  pending: number;
  target: ConnectTarget;
  /** Ms since the epoch while it could not be reached lately; 0 otherwise. */
  passedOverUntil: number;
}

export interface Destination {
  readonly candidate: Candidate;
  readonly connection: Connection;
}

export interface CallerOptions {
  readonly service: string;
  readonly expect: IdentityMatcher;
  readonly selector: Selector;
  readonly filters: readonly Filter[];
}

export interface CallerContext {
  readonly view: RegistryView;
  readonly pool: ConnectionPool;
  readonly clock: Clock;
}

/** Finds an instance of one called service and a verified connection to it. */
export class Caller {
  readonly #options: CallerOptions;
  readonly #context: CallerContext;
  #seenVersion = -1;
  #known = new Map<string, Candidate>();
  #candidates: readonly Candidate[] = [];

  constructor(options: CallerOptions, context: CallerContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Chooses an instance; once a call, because a selector may count its picks. Undefined when none is known. */
  pick(): Candidate | undefined {
    return this.#options.selector.pick(this.#current());
  }

  /** Chooses for a call that this instance has refused: another one where there is one. */
  pickInstead(refusing: Candidate): Candidate | undefined {
    return this.#pickOther(new Set([refusing.instance.id])) ?? this.pick();
  }

  /** The path of nearly every call: a live connection, found without waiting. */
  liveTo(candidate: Candidate): Destination | undefined {
    if (candidate.passedOverUntil > 0) return undefined;
    const connection = this.#context.pool.live(candidate.target);
    return connection && { candidate, connection };
  }

  /**
   * Waits for the registry and connects, to another instance when one cannot be reached: nothing has been sent yet, so
   * trying elsewhere is safe for every method. Rejects with CallError UNAVAILABLE.
   */
  async connect(picked: Candidate | undefined, deadlineAt: number): Promise<Destination> {
    const { view, clock, pool } = this.#context;
    await view.ready(deadlineAt);
    const tried = new Set<string>();
    const failures: unknown[] = [];
    for (let first = picked; ; first = undefined) {
      const candidate = first && first.passedOverUntil <= clock.now() ? first : this.#pickOther(tried);
      if (!candidate) throw this.#unreachable(failures);
      try {
        const connection = await pool.connect(candidate.target, deadlineAt);
        candidate.passedOverUntil = 0;
        return { candidate, connection };
      } catch (error) {
        if (error instanceof CallError && error.code === Status.DEADLINE_EXCEEDED) throw error;
        candidate.passedOverUntil = clock.now() + PASS_OVER_MS;
        tried.add(candidate.instance.id);
        failures.push(error);
      }
    }
  }

  #pickOther(tried: ReadonlySet<string>): Candidate | undefined {
    const left = this.#current().filter((candidate) => !tried.has(candidate.instance.id));
    const now = this.#context.clock.now();
    const healthy = left.filter((candidate) => candidate.passedOverUntil <= now);
    return this.#options.selector.pick(healthy.length > 0 ? healthy : left);
  }

  #current(): readonly Candidate[] {
    const { view, pool } = this.#context;
    if (view.version !== this.#seenVersion) {
      this.#seenVersion = view.version;
      const known = new Map<string, Candidate>();
      for (const instance of view.instances()) known.set(instance.id, this.#candidate(instance));
      this.#known = known;
      const usable = [readyOnly, ...this.#options.filters].reduce((list, filter) => filter(list), view.instances());
      this.#candidates = usable.flatMap((instance) => known.get(instance.id) ?? []);
      pool.retain(this.#options.service, new Set(known.keys()));
    }
    return this.#candidates;
  }

  // The object of an instance stays the same as long as the instance is known: calls under way count down on it.
  #candidate(instance: InstanceRecord): Candidate {
    // A record always has an endpoint: the registry view drops those that have none.
    const endpoint = instance.endpoints[0] as Endpoint;
    const { service, expect } = this.#options;
    const key = `${instance.id} ${endpoint.host}:${endpoint.port} ${expect.description}`;
    const target: ConnectTarget = { key, instance: instance.id, service, endpoint, expect };
    const known = this.#known.get(instance.id);
    if (!known) return { instance, pending: 0, passedOverUntil: 0, target };
    known.instance = instance;
    if (known.target.key !== key) known.target = target;
    return known;
  }

  #unreachable(failures: readonly unknown[]): CallError {
    const { service } = this.#options;
    if (failures.length > 0) {
      const what = failures.map((error) => (error instanceof Error ? error.message : 'connection failed')).join('; ');
      return new CallError('UNAVAILABLE', `no instance of ${service} could be reached: ${what}`, {
        cause: failures.at(-1),
      });
    }
    const known = this.#known.size;
    const why =
      known === 0
        ? `the registry (${this.#context.view.state}) knows none`
        : `none of the ${known} known ones is ready and matches the filters`;
    return new CallError('UNAVAILABLE', `no instance of ${service}: ${why}`);
  }
}
