import { randomUUID } from 'node:crypto';
import {
  CallError,
  type InstanceRecord,
  type RegistryEvent,
  type RegistrySession,
  type RegistryState,
} from '@sallyport/core';
import {
  Backoff,
  byId,
  ChangeFeed,
  type RegistryContext,
  requireInstanceRecord,
  requireServiceName,
} from '@sallyport/core/spi';
import { readInstances } from './catalogue-follower.js';
import type { Connection } from './connection.js';
import { detailOf } from './failure.js';
import { OwnInstance } from './own-instance.js';
import { requireReadable } from './preflight.js';

/** One participant: its own instances with their heartbeat, and what it watches. */
export class ConsulSession implements RegistrySession {
  readonly #connection: Connection;
  readonly #context: RegistryContext;
  readonly #onClose: () => void;
  /** Tells this participant's records from those of others. A mark, not a secret: it stands in the catalogue. */
  readonly #owner = randomUUID();
  readonly #own = new Map<string, OwnInstance>();
  readonly #feeds = new Set<ChangeFeed>();
  readonly #closing = new AbortController();
  readonly #pulse: Backoff;
  readonly #retry: Backoff;
  readonly #unsubscribe: () => void;
  #beating = false;
  #problem: string | undefined;
  #closed: Promise<void> | undefined;

  constructor(connection: Connection, context: RegistryContext, onClose: () => void) {
    const { retry, healthCheck } = connection.options;
    const { heartbeatMs } = healthCheck;
    const { clock } = context;
    this.#connection = connection;
    this.#context = context;
    this.#onClose = onClose;
    // With jitter the heartbeats of many instances spread by themselves.
    this.#pulse = new Backoff({ clock, firstMs: heartbeatMs, maxMs: heartbeatMs });
    this.#retry = new Backoff({ clock, ...retry, maxMs: Math.min(retry.maxMs, heartbeatMs) });
    this.#unsubscribe = connection.onWake(() => {
      this.#pulse.wake();
      this.#retry.wake();
    });
  }

  get state(): RegistryState {
    if (!this.#connection.contacted) return 'down';
    return this.#problem !== undefined || this.#connection.stale ? 'stale' : 'fresh';
  }

  async register(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    const known = this.#own.get(record.id);
    if (known && known.record.service !== record.service) {
      throw new CallError('ALREADY_EXISTS', `${record.id} is registered already, for another service`);
    }
    const own = known ?? this.#newInstance(record);
    this.#own.set(record.id, own);
    try {
      await own.publish(record);
    } catch (error) {
      // Consul may have got it all the same. Then it expires, because there is no heartbeat.
      if (known === undefined) this.#own.delete(record.id);
      throw error;
    }
    void this.#beat();
  }

  async update(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    const own = this.#own.get(record.id);
    if (own?.record.service !== record.service) {
      throw new CallError('NOT_FOUND', `this participant has not registered ${record.id}`);
    }
    await own.publish(record);
  }

  async deregister(id: string): Promise<void> {
    const own = this.#own.get(id);
    this.#own.delete(id);
    await own?.withdraw();
  }

  async list(service: string, { signal }: { signal?: AbortSignal } = {}): Promise<readonly InstanceRecord[]> {
    this.#requireOpen();
    requireServiceName(service);
    signal?.throwIfAborted();
    const found = await this.#connection.perform(async (requests, token) => {
      const { body } = await requests.instances(token, service, signal ? { signal } : {});
      const instances = readInstances(body, service);
      if (instances.size === 0) await requireReadable(requests, token, service);
      return instances;
    });
    signal?.throwIfAborted();
    return Array.from(found.values(), ({ record }) => record).sort(byId);
  }

  watch(service: string, { signal }: { signal?: AbortSignal } = {}): AsyncIterable<RegistryEvent> {
    requireServiceName(service);
    return {
      [Symbol.asyncIterator]: () => {
        if (this.#closed || signal?.aborted) return endedFeed(service);
        return this.#connection.follow(service).feed(this.#feeds, signal);
      },
    };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    this.#unsubscribe();
    for (const feed of this.#feeds) feed.end();
    const own = [...this.#own.values()];
    this.#own.clear();
    // What cannot be withdrawn expires.
    await Promise.allSettled(own.map((instance) => instance.withdraw()));
    this.#onClose();
  }

  #newInstance(record: InstanceRecord): OwnInstance {
    return new OwnInstance(record, {
      owner: this.#owner,
      connection: this.#connection,
      closing: this.#closing.signal,
    });
  }

  /** Goes on for as long as there is something to keep alive. */
  async #beat(): Promise<void> {
    if (this.#beating) return;
    this.#beating = true;
    const { signal } = this.#closing;
    while (this.#own.size > 0 && !signal.aborted) {
      await (this.#problem === undefined ? this.#pulse : this.#retry).wait(signal);
      if (!signal.aborted) await this.#beatOnce();
    }
    this.#beating = false;
  }

  async #beatOnce(): Promise<void> {
    const own = [...this.#own.values()];
    const rotating = own.some((instance) => !instance.isCurrent);
    const outcomes = await Promise.allSettled(own.map((instance) => instance.beat()));
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    this.#report(failed && detailOf(failed.reason));
    if (!rotating || failed) return;
    this.#context.events.emit('registry-credential-rotated', {
      registry: 'consul',
      credential: this.#connection.credential.name,
    });
  }

  #report(problem: string | undefined): void {
    if (problem === undefined) this.#retry.reset();
    const turned = (problem === undefined) !== (this.#problem === undefined);
    this.#problem = problem;
    if (!turned || this.#closed) return;
    this.#context.events.emit('registry-state', {
      registry: 'consul',
      target: this.#context.service,
      state: problem === undefined ? 'fresh' : 'stale',
      detail: problem === undefined ? 'heartbeats arrive again' : `no heartbeat: ${problem}`,
    });
  }

  #requireOpen(): void {
    if (this.#closed) throw new CallError('FAILED_PRECONDITION', 'the registry session is closed');
  }
}

function endedFeed(service: string): ChangeFeed {
  return new ChangeFeed({ service, snapshot: () => undefined, memberOf: [], signal: AbortSignal.abort() });
}
