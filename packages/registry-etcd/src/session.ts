import { randomUUID } from 'node:crypto';
import {
  CallError,
  type InstanceRecord,
  type RegistryContext,
  type RegistryEvent,
  type RegistrySession,
  type RegistryState,
} from '@sallyport/core';
import {
  byId,
  ChangeFeed,
  requireInstanceRecord,
  requireServiceName,
  systemClock,
  type Timer,
} from '@sallyport/core/spi';
import { prefixRange } from './keys.js';
import { listAll } from './listing.js';
import { asCallError, type Membership } from './membership.js';
import { Registration } from './registration.js';
import { recordOf } from './stored-record.js';

/** One service's participation: what it has registered, and who reads through it. */
export class EtcdSession implements RegistrySession {
  readonly #membership: Membership;
  readonly #context: RegistryContext;
  readonly #onClose: () => Promise<void>;
  /** Proves to this session, in the stored records, what is its own. */
  readonly #owner = randomUUID();
  readonly #own = new Map<string, Registration>();
  readonly #feeds = new Set<ChangeFeed>();
  readonly #problems = new Map<string, string>();
  #reached = false;
  #closing: Promise<void> | undefined;

  constructor(membership: Membership, context: RegistryContext, onClose: () => Promise<void>) {
    this.#membership = membership;
    this.#context = context;
    this.#onClose = onClose;
    membership.join(context);
  }

  get state(): RegistryState {
    const { cluster, followers } = this.#membership;
    this.#reached ||= cluster.inContact;
    if (!this.#reached) return 'down';
    const states = followers.map((follower) => follower.state);
    if (states.includes('down')) return 'down';
    return cluster.inContact && this.#problems.size === 0 && !states.includes('stale') ? 'fresh' : 'stale';
  }

  async register(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    await this.#admitted();
    const own = this.#own.get(record.id) ?? this.#registrationOf(record);
    if (own.record.service !== record.service) {
      throw new CallError('ALREADY_EXISTS', `${record.id} is registered already, for another service`);
    }
    // From now on it is withdrawn with the others, whatever becomes of it.
    this.#own.set(record.id, own);
    try {
      await own.publish(record);
    } catch (error) {
      if (!own.published) this.#own.delete(record.id);
      throw error;
    }
  }

  async update(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    const own = this.#own.get(record.id);
    if (own?.record.service !== record.service) {
      throw new CallError('NOT_FOUND', `this participant has not registered ${record.id}`);
    }
    // Who leaves does not wait long for a registry that hangs: its lease passes.
    if (record.state === 'draining') await this.#inTime(own.publish(record));
    else await own.publish(record);
  }

  async deregister(id: string): Promise<void> {
    const own = this.#own.get(id);
    this.#own.delete(id);
    this.#problems.delete(id);
    if (own) await this.#inTime(own.withdraw());
  }

  async list(service: string, { signal }: { signal?: AbortSignal } = {}): Promise<readonly InstanceRecord[]> {
    this.#requireOpen();
    requireServiceName(service);
    signal?.throwIfAborted();
    await this.#admitted();
    const { cluster, keys, options } = this.#membership;
    const prefix = keys.ofService(service);
    const { items } = await listAll(
      (method, request) => cluster.insist(method, request, signal),
      prefixRange(prefix),
      options.pageSize,
    );
    signal?.throwIfAborted();
    const parsed = items.map(({ key, value }) => recordOf(value, { service, id: key.slice(prefix.length) }));
    return parsed.flatMap((one) => (one.ok ? [one.record] : [])).sort(byId);
  }

  watch(service: string, { signal }: { signal?: AbortSignal } = {}): AsyncIterable<RegistryEvent> {
    requireServiceName(service);
    return {
      [Symbol.asyncIterator]: () => {
        if (this.#closing || signal?.aborted) return endedFeed(service);
        return this.#membership.follow(service, this.#context).feed(this.#feeds, signal);
      },
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const feed of [...this.#feeds]) feed.end();
    const own = [...this.#own.values()];
    this.#own.clear();
    // What cannot be withdrawn in time passes with its lease.
    await Promise.allSettled(own.map((registration) => this.#inTime(registration.withdraw())));
    this.#membership.leave(this.#context);
    await this.#onClose();
  }

  /** Rejects with DEADLINE_EXCEEDED after `closeMs`; the work is left to itself. */
  async #inTime(work: Promise<void>): Promise<void> {
    const ms = this.#membership.options.timeouts.closeMs;
    let timer: Timer | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = systemClock.after(ms, () =>
        reject(new CallError('DEADLINE_EXCEEDED', `etcd did not confirm the end of an instance within ${ms} ms`)),
      );
    });
    try {
      await Promise.race([work, late]);
    } finally {
      timer?.cancel();
    }
  }

  #registrationOf(record: InstanceRecord): Registration {
    const { cluster, keys, options } = this.#membership;
    return new Registration(record, {
      key: keys.ofInstance(record.service, record.id),
      owner: this.#owner,
      cluster,
      options,
      clock: this.#context.clock,
      onProblem: (problem) => this.#report(record.id, problem),
    });
  }

  #report(id: string, problem: string | undefined): void {
    const before = this.#problems.size;
    if (problem === undefined) this.#problems.delete(id);
    else this.#problems.set(id, problem);
    if (this.#closing || (before === 0) === (this.#problems.size === 0)) return;
    this.#context.events.emit('registry-state', {
      registry: 'etcd',
      target: this.#context.service,
      state: problem === undefined ? 'fresh' : 'stale',
      detail: problem === undefined ? 'heartbeats arrive again' : `no heartbeat for ${id}: ${problem}`,
    });
  }

  async #admitted(): Promise<void> {
    try {
      await this.#membership.admit(this.#context);
    } catch (error) {
      asCallError(error);
    }
    this.#requireOpen();
  }

  #requireOpen(): void {
    if (this.#closing) throw new CallError('FAILED_PRECONDITION', 'the registry session is closed');
  }
}

function endedFeed(service: string): ChangeFeed {
  return new ChangeFeed({ service, snapshot: () => undefined, memberOf: [], signal: AbortSignal.abort() });
}
