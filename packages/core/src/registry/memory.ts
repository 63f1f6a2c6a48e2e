import { z } from 'zod';
import { CallError } from '../errors.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { parseOptions } from '../policy/options.js';
import { ChangeFeed } from './change-feed.js';
import { byId, requireInstanceRecord, requireServiceName, sameRecord } from './record.js';
import type { InstanceRecord, Registry, RegistryEvent, RegistrySession } from './registry.js';

/** The memory registry has no options. */
export type MemoryRegistryOptions = Record<string, never>;

const optionsSchema = z.strictObject({});

/**
 * A registry for the services of one process: share the returned object among them. It is the state; when it is gone, so
 * are the records.
 */
export function memory(options: MemoryRegistryOptions = {}): Registry {
  const { violations } = parseOptions(optionsSchema, options, 'registry.memory');
  const instances = new Instances();
  return {
    kind: 'memory',
    reach: 'machine',
    check: async () => violations,
    async open() {
      if (violations.length > 0) throw new InsecureConfigurationError('the memory registry', violations);
      return new MemorySession(instances);
    },
  };
}

interface Owned {
  readonly record: InstanceRecord;
  readonly owner: MemorySession;
}

/** What all sessions share: who is there, and who wants to know. */
class Instances {
  readonly feeds = new Set<ChangeFeed>();
  readonly #owned = new Map<string, Owned>();

  get(id: string): Owned | undefined {
    return this.#owned.get(id);
  }

  of(service: string): readonly InstanceRecord[] {
    const records = Array.from(this.#owned.values(), ({ record }) => record);
    return records.filter((record) => record.service === service).sort(byId);
  }

  put(record: InstanceRecord, owner: MemorySession): void {
    const former = this.#owned.get(record.id)?.record;
    this.#owned.set(record.id, { record, owner });
    if (former === undefined) this.#tell(record.service, { type: 'added', instance: record });
    else if (!sameRecord(former, record)) this.#tell(record.service, { type: 'changed', instance: record });
  }

  remove(id: string): void {
    const owned = this.#owned.get(id);
    if (owned === undefined) return;
    this.#owned.delete(id);
    this.#tell(owned.record.service, { type: 'removed', id });
  }

  #tell(service: string, event: RegistryEvent): void {
    for (const feed of this.feeds) if (feed.service === service) feed.push(event);
  }
}

class MemorySession implements RegistrySession {
  readonly state = 'fresh';
  readonly #instances: Instances;
  readonly #own = new Set<string>();
  readonly #feeds = new Set<ChangeFeed>();
  #closed = false;

  constructor(instances: Instances) {
    this.#instances = instances;
  }

  async register(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    if (this.#instances.get(record.id) && !this.#owns(record)) {
      throw new CallError('ALREADY_EXISTS', `${record.id} is registered already, by another participant or service`);
    }
    this.#own.add(record.id);
    this.#instances.put(record, this);
  }

  async update(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    if (!this.#owns(record)) throw new CallError('NOT_FOUND', `this participant has not registered ${record.id}`);
    this.#instances.put(record, this);
  }

  async deregister(id: string): Promise<void> {
    if (this.#own.delete(id)) this.#instances.remove(id);
  }

  async list(service: string, { signal }: { signal?: AbortSignal } = {}): Promise<readonly InstanceRecord[]> {
    this.#requireOpen();
    requireServiceName(service);
    signal?.throwIfAborted();
    return this.#instances.of(service);
  }

  watch(service: string, { signal }: { signal?: AbortSignal } = {}): AsyncIterable<RegistryEvent> {
    requireServiceName(service);
    const memberOf = [this.#instances.feeds, this.#feeds];
    return {
      [Symbol.asyncIterator]: () => {
        const feed = new ChangeFeed({ service, snapshot: () => this.#instances.of(service), memberOf, signal });
        if (this.#closed) feed.end();
        return feed;
      },
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const feed of this.#feeds) feed.end();
    for (const id of this.#own) this.#instances.remove(id);
    this.#own.clear();
  }

  #owns(record: InstanceRecord): boolean {
    const owned = this.#instances.get(record.id);
    return owned?.owner === this && owned.record.service === record.service;
  }

  #requireOpen(): void {
    if (this.#closed) throw new CallError('FAILED_PRECONDITION', 'the registry session is closed');
  }
}
