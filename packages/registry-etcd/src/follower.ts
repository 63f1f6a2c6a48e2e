import { CallError, type InstanceRecord, type RegistryEvent, type RegistryState } from '@sallyport/core';
import { Backoff, byId, ChangeFeed, sameRecord, systemClock, type Timer } from '@sallyport/core/spi';
import { type KeyValue, type WatchResponse, watch } from './api/messages.js';
import type { Cluster } from './cluster.js';
import type { CloseStream } from './connection.js';
import { messageOf } from './errors.js';
import { prefixRange } from './keys.js';
import { type Listing, listAll, MAX_INSTANCES } from './listing.js';
import type { ResolvedOptions } from './options.js';
import { recordOf } from './stored-record.js';

export interface ServiceFollowerOptions {
  readonly service: string;
  /** Of all keys of the service. */
  readonly prefix: string;
  readonly cluster: Cluster;
  readonly options: ResolvedOptions;
  /** Rejects while this process may not use the registry. */
  readonly admit: () => Promise<void>;
  readonly onRefused: (instance: string, detail: string) => void;
  /** Called when nobody reads any more, or `close` was called. */
  readonly onEnd: () => void;
}

interface Known {
  readonly value: Buffer;
  /** Undefined: what is stored there is no record. */
  readonly record: InstanceRecord | undefined;
}

/**
 * Keeps the readers of one service up to date: everything at one revision, then every change from the next revision on, and
 * the same from the beginning whenever the stream of changes ends, for whatever reason. Nothing is taken up in the middle:
 * a store that was restored, wiped or compacted meanwhile looks like any other. While etcd is out of reach the readers keep
 * what they know.
 */
export class ServiceFollower {
  readonly #options: ServiceFollowerOptions;
  readonly #feeds: Readers;
  readonly #closing = new AbortController();
  readonly #backoff: Backoff;
  #known: Map<string, Known> | undefined;
  /** Known, but not in the registry any more, and until when, by the clock of the process. */
  readonly #missing = new Map<string, number>();
  #grace: Timer | undefined;
  /** Whether what is known is what etcd says, apart from those who are missing. */
  #inContact = false;
  #revision = 0;
  #problem: string | undefined;

  constructor(options: ServiceFollowerOptions) {
    this.#options = options;
    this.#feeds = new Readers(() => this.close());
    const { firstBackoffMs, maxBackoffMs } = options.options.retry;
    this.#backoff = new Backoff({ clock: systemClock, firstMs: firstBackoffMs, maxMs: maxBackoffMs });
    void this.#follow();
  }

  get state(): RegistryState {
    if (this.#problem === undefined) return 'fresh';
    return this.#known === undefined ? 'down' : 'stale';
  }

  /** A reader of its own; the follower ends with its last reader. */
  feed(memberOf: Set<ChangeFeed>, signal: AbortSignal | undefined): ChangeFeed {
    const feed = new ChangeFeed({
      service: this.#options.service,
      snapshot: () => this.#snapshot(),
      memberOf: [this.#feeds, memberOf],
      signal,
    });
    if (this.#problem !== undefined) feed.push(this.#stateEvent(this.#problem));
    return feed;
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#grace?.cancel();
    for (const feed of [...this.#feeds]) feed.end();
    this.#options.onEnd();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#watchFrom(await this.#list());
      } catch (error) {
        if (!signal.aborted) this.#turn(messageOf(error));
      }
      this.#inContact = false;
      await this.#backoff.wait(signal);
    }
  }

  /** Resolves with the revision of what is known then. */
  async #list(): Promise<number> {
    const { cluster, prefix, options, admit } = this.#options;
    await admit();
    const listing = await listAll(
      (method, request) => cluster.ask(method, request),
      prefixRange(prefix),
      options.pageSize,
    );
    if (!this.#closing.signal.aborted) this.#adopt(listing);
    return listing.revision;
  }

  #adopt({ items, revision }: Listing): void {
    const before = this.#known;
    const known = new Map<string, Known>();
    const events: RegistryEvent[] = [];
    for (const item of items) {
      const id = this.#idOf(item);
      const former = before?.get(id);
      const now = this.#read(id, item.value, former);
      known.set(id, now);
      this.#missing.delete(id);
      const event = changeOf(id, former?.record, now.record);
      if (event) events.push(event);
    }
    // Nobody saw them go: a store that is empty at once, or older than it was, has rather lost them.
    const gone = [...(before ?? [])].filter(([id]) => !known.has(id));
    const suspicious = gone.length > 0 && (items.length === 0 || revision < this.#revision);
    const now = performance.now();
    for (const [id, former] of gone) {
      const until = this.#missing.get(id) ?? (suspicious ? now + this.#options.options.emptyGraceMs : 0);
      if (until > now) {
        known.set(id, former);
        this.#missing.set(id, until);
      } else {
        this.#missing.delete(id);
        if (former.record) events.push({ type: 'removed', id });
      }
    }
    this.#known = known;
    this.#revision = revision;
    this.#inContact = true;
    this.#awaitGrace();
    // Whoever waits for the first answer gets it as a snapshot.
    this.#tell(before === undefined ? [] : events);
    this.#turn(this.#missing.size > 0 ? this.#missingDetail() : undefined);
  }

  /** Rejects when no watch could be had; resolves when the one that was there has ended. */
  #watchFrom(revision: number): Promise<void> {
    const { cluster, prefix, options, service } = this.#options;
    const { signal } = this.#closing;
    // The last reader may have gone during the listing, and nobody would end the watch.
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve, reject) => {
      let close: CloseStream | undefined;
      let begun = false;
      let over = false;
      const end = (error?: CallError) => {
        if (over) return;
        over = true;
        timer.cancel();
        signal.removeEventListener('abort', abort);
        close?.();
        if (begun || !error) resolve();
        else reject(error);
      };
      const abort = () => end();
      const timer = systemClock.after(options.timeouts.requestMs, () =>
        end(new CallError('DEADLINE_EXCEEDED', `etcd did not begin to report changes of ${service} in time`)),
      );
      const onAnswer = (answer: WatchResponse) => {
        if (over) return;
        if (answer.canceled) {
          return end(new CallError('UNAVAILABLE', `etcd does not report changes of ${service}`));
        }
        if (answer.created) {
          // The store is younger than what was read from it a moment ago: it is another one.
          if (answer.revision < revision) return end();
          begun = true;
          timer.cancel();
          this.#backoff.reset();
        }
        this.#apply(answer);
      };
      signal.addEventListener('abort', abort);
      cluster.stream(watch, { ...prefixRange(prefix), fromRevision: revision + 1 }, { onAnswer, onEnd: end }).then(
        (opened) => {
          close = opened;
          if (over) opened();
        },
        (error: unknown) => end(error instanceof CallError ? error : new CallError('UNKNOWN', messageOf(error))),
      );
    });
  }

  #apply({ events, revision }: WatchResponse): void {
    const known = this.#known;
    if (!known || events.length === 0) return;
    const changes: RegistryEvent[] = [];
    for (const { type, item } of events) {
      const id = this.#idOf(item);
      const before = known.get(id);
      this.#missing.delete(id);
      if (type === 'delete') known.delete(id);
      else if (before || known.size < MAX_INSTANCES) known.set(id, this.#read(id, item.value, before));
      else this.#options.onRefused(printableId(id), `the service has more than ${MAX_INSTANCES} instances`);
      const change = changeOf(id, before?.record, known.get(id)?.record);
      if (change) changes.push(change);
    }
    this.#revision = Math.max(this.#revision, revision);
    this.#awaitGrace();
    this.#tell(changes);
    if (this.#missing.size === 0) this.#turn(undefined);
  }

  #read(id: string, value: Buffer, before: Known | undefined): Known {
    if (before?.value.equals(value)) return before;
    const parsed = recordOf(value, { service: this.#options.service, id });
    if (parsed.ok) return { value, record: parsed.record };
    this.#options.onRefused(printableId(id), parsed.reason);
    // What is no record may be long; that it has changed will be seen all the same.
    return { value: Buffer.alloc(0), record: undefined };
  }

  /** Nobody goes while etcd is out of reach: then the next listing decides. */
  #awaitGrace(): void {
    this.#grace?.cancel();
    if (this.#missing.size === 0) return;
    const nextMs = Math.min(...this.#missing.values()) - performance.now();
    this.#grace = systemClock.after(Math.max(0, nextMs), () => {
      if (this.#inContact) this.#endGrace();
    });
  }

  #endGrace(): void {
    const now = performance.now();
    const events: RegistryEvent[] = [];
    for (const [id, until] of this.#missing) {
      if (until > now) continue;
      if (this.#known?.get(id)?.record) events.push({ type: 'removed', id });
      this.#known?.delete(id);
      this.#missing.delete(id);
    }
    this.#awaitGrace();
    this.#tell(events);
    if (this.#missing.size === 0) this.#turn(undefined);
  }

  #missingDetail(): string {
    const { emptyGraceMs } = this.#options.options;
    return `${this.#missing.size} instances vanished at once; they stay known for ${emptyGraceMs / 1000} s`;
  }

  #snapshot(): readonly InstanceRecord[] | undefined {
    if (!this.#known) return undefined;
    const records = Array.from(this.#known.values(), ({ record }) => record);
    return records.filter((record) => record !== undefined).sort(byId);
  }

  #turn(problem: string | undefined): void {
    const before = this.#problem;
    this.#problem = problem;
    if ((before === undefined) === (problem === undefined)) return;
    this.#tell([this.#stateEvent(problem ?? 'etcd answers again')]);
  }

  #stateEvent(detail: string): RegistryEvent {
    return { type: 'state', state: this.state, detail };
  }

  #tell(events: readonly RegistryEvent[]): void {
    for (const feed of [...this.#feeds]) {
      for (const event of events) feed.push(event);
      feed.wake();
    }
  }

  #idOf({ key }: KeyValue): string {
    return key.slice(this.#options.prefix.length);
  }
}

/** The readers of a follower; says when the last one has gone. */
class Readers extends Set<ChangeFeed> {
  readonly #onEmpty: () => void;

  constructor(onEmpty: () => void) {
    super();
    this.#onEmpty = onEmpty;
  }

  override delete(feed: ChangeFeed): boolean {
    const deleted = super.delete(feed);
    if (deleted && this.size === 0) this.#onEmpty();
    return deleted;
  }
}

function changeOf(
  id: string,
  before: InstanceRecord | undefined,
  after: InstanceRecord | undefined,
): RegistryEvent | undefined {
  if (after === undefined) return before && { type: 'removed', id };
  if (before === undefined) return { type: 'added', instance: after };
  return sameRecord(before, after) ? undefined : { type: 'changed', instance: after };
}

/** A key may hold anything, line breaks and terminal sequences too. */
function printableId(id: string): string {
  return JSON.stringify(id.slice(0, 128));
}
