import { createHash } from 'node:crypto';
import type { InstanceRecord, RegistryEvent, RegistryState } from '@sallyport/core';
import { Backoff, byId, ChangeFeed, sameRecord } from '@sallyport/core/spi';
import type { Connection } from './connection.js';
import { type Entry, parseEntry, recordOf } from './entry.js';
import { detailOf } from './failure.js';
import { requireReadable } from './preflight.js';
import { type InstancesAnswer, parseBody, strange } from './requests.js';

/** Bounds what a registry that went mad can make this process hold. */
const MAX_INSTANCES = 10_000;
/** Between two queries of a catalogue that does not come to rest. After a rest as many may follow each other at once. */
const GAP_MS = 20;
const QUICK_QUERIES = 10;
const MAX_NODES_TO_ASK_FOR = 16;

interface Known extends Pick<Entry, 'node' | 'createIndex' | 'modifyIndex'> {
  readonly record: InstanceRecord;
}

/**
 * Keeps the readers of one service up to date by blocking queries, as Consul's documentation wants them: the index must be
 * positive and start over when it goes back or a query fails. What is known stays until Consul says something better, and
 * "nothing" is only believed when Consul was not away in between and the token may look.
 */
export class CatalogueFollower {
  readonly #service: string;
  readonly #connection: Connection;
  readonly #onEnd: () => void;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  readonly #feeds = new Readers(() => this.close());
  readonly #refused = new Map<string, string>();
  #known: ReadonlyMap<string, Known> | undefined;
  /** Of the answer that made what is known. */
  #digest = '';
  #index = 0n;
  /** No failure and no step back of the index since the last instances were seen. */
  #continuous = true;
  #emptySince: number | undefined;
  #problem: string | undefined;
  /** Queries that may be made without a pause: one more every GAP_MS. */
  #allowance = QUICK_QUERIES;
  #countedAt = performance.now();

  constructor(service: string, connection: Connection, onEnd: () => void) {
    this.#service = service;
    this.#connection = connection;
    this.#onEnd = onEnd;
    const { clock } = connection.context;
    this.#backoff = new Backoff({ clock, ...connection.options.retry });
    void this.#run();
  }

  get state(): RegistryState {
    if (this.#problem === undefined) return 'fresh';
    return this.#known === undefined ? 'down' : 'stale';
  }

  /** A reader of its own; the loop ends with its last reader. */
  feed(memberOf: Set<ChangeFeed>, signal: AbortSignal | undefined): ChangeFeed {
    const feed = new ChangeFeed({
      service: this.#service,
      snapshot: () => this.#known && recordsOf(this.#known),
      memberOf: [this.#feeds, memberOf],
      signal,
    });
    if (this.#problem !== undefined) feed.push(this.#stateEvent(this.#problem));
    return feed;
  }

  /** What failed is tried again at once. */
  wake(): void {
    this.#backoff.wake();
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#onEnd();
    for (const feed of this.#feeds) feed.end();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#take(await this.#ask(this.#index));
        this.#backoff.reset();
        await this.#rest();
      } catch (error) {
        if (signal.aborted) return;
        this.#lose(detailOf(error));
        await this.#backoff.wait(signal);
      }
    }
  }

  #ask(index: bigint): Promise<InstancesAnswer> {
    const { signal } = this.#closing;
    const waitMs =
      this.#emptySince === undefined ? undefined : Math.max(1, Math.ceil(this.#graceLeftMs(this.#emptySince)));
    return this.#connection.perform((requests, token) =>
      requests.instances(token, this.#service, { index, signal, ...(waitMs === undefined ? {} : { waitMs }) }),
    );
  }

  async #take(answer: InstancesAnswer): Promise<void> {
    if (answer.index < this.#index) this.#continuous = false;
    this.#index = answer.index < this.#index ? 0n : answer.index;
    const digest = createHash('sha1').update(answer.body).digest('base64');
    if (digest === this.#digest) return this.#believe(this.#known, digest);
    const listed = this.#read(answer.body);
    if (listed.size > 0) return this.#believe(listed, digest);
    await this.#takeEmpty(digest);
  }

  /** An empty list is what Consul answers to a token that may not look, too, and after it has lost its data. */
  async #takeEmpty(digest: string): Promise<void> {
    const nodes = new Set(Array.from(this.#known?.values() ?? [], ({ node }) => node));
    await this.#connection.perform((requests, token) =>
      requireReadable(requests, token, this.#service, [...nodes].slice(0, MAX_NODES_TO_ASK_FOR)),
    );
    if (!this.#known?.size) return this.#believe(new Map(), digest);
    // Once more, lest the permission came back between the two answers.
    const again = await this.#ask(0n);
    const listed = this.#read(again.body);
    if (listed.size > 0) return this.#believe(listed, '');
    this.#emptySince ??= performance.now();
    if (this.#continuous || this.#graceLeftMs(this.#emptySince) <= 0) return this.#believe(listed, digest);
    this.#turn('Consul came back without any instance; the last known are kept for a while');
  }

  #graceLeftMs(since: number): number {
    return since + this.#connection.options.emptyGraceMs - performance.now();
  }

  #believe(listed: ReadonlyMap<string, Known> | undefined, digest: string): void {
    const before = this.#known;
    this.#digest = digest;
    this.#known = listed;
    this.#emptySince = undefined;
    this.#continuous = true;
    if (before !== listed) this.#tell(before, listed ?? new Map());
    this.#turn(undefined);
    for (const feed of this.#feeds) feed.wake();
  }

  #tell(before: ReadonlyMap<string, Known> | undefined, now: ReadonlyMap<string, Known>): void {
    const events: RegistryEvent[] = [];
    for (const id of before?.keys() ?? []) if (!now.has(id)) events.push({ type: 'removed', id });
    for (const [id, { record }] of now) {
      const former = before?.get(id)?.record;
      if (former === undefined) events.push({ type: 'added', instance: record });
      else if (!sameRecord(former, record)) events.push({ type: 'changed', instance: record });
    }
    for (const feed of this.#feeds) for (const event of events) feed.push(event);
  }

  #read(body: Buffer): Map<string, Known> {
    // Consul may have lost its data when it was away, and may count anew.
    const before = this.#continuous ? this.#known : undefined;
    return readInstances(body, this.#service, { report: (id, detail) => this.#refuse(id, detail), before });
  }

  #lose(detail: string): void {
    this.#index = 0n;
    this.#continuous = false;
    this.#turn(detail);
  }

  #turn(problem: string | undefined): void {
    if (this.#problem === problem) return;
    const turned = (this.#problem === undefined) !== (problem === undefined);
    this.#problem = problem;
    if (!turned) return;
    const detail = problem ?? 'Consul answers again';
    for (const feed of this.#feeds) feed.push(this.#stateEvent(detail));
    // Readers hear nothing before their first snapshot; an operator should.
    if (this.state === 'down') this.#report(detail);
  }

  #report(detail: string): void {
    const { events } = this.#connection.context;
    events.emit('registry-state', { registry: 'consul', target: this.#service, state: 'down', detail });
  }

  #stateEvent(detail: string): RegistryEvent {
    return { type: 'state', state: this.state, detail };
  }

  #refuse(id: string, detail: string): void {
    if (this.#refused.get(id) === detail) return;
    if (this.#refused.size >= MAX_INSTANCES) this.#refused.clear();
    this.#refused.set(id, detail);
    // An id from outside may hold anything, line breaks and terminal sequences too.
    const instance = JSON.stringify(id.slice(0, 128));
    const { events } = this.#connection.context;
    events.emit('registry-record-refused', { target: this.#service, instance, detail });
  }

  async #rest(): Promise<void> {
    const now = performance.now();
    this.#allowance = Math.min(QUICK_QUERIES, this.#allowance + (now - this.#countedAt) / GAP_MS) - 1;
    this.#countedAt = now;
    if (this.#allowance >= 0) return;
    const { clock } = this.#connection.context;
    await new Backoff({ clock, firstMs: GAP_MS, random: () => 1 }).wait(this.#closing.signal);
  }
}

export interface ReadingOptions {
  /** An entry that is no record is reported and left out. Left out: nobody is told. */
  readonly report?: (id: string, detail: string) => void;
  /** What an earlier answer held. Of it are taken over, unread, the entries that have not changed since. */
  readonly before?: ReadonlyMap<string, Known> | undefined;
}

/**
 * The instances that take calls, by id: those whose checks all pass. Throws CallError UNAVAILABLE when the answer is not a
 * list.
 */
export function readInstances(
  body: Buffer,
  service: string,
  { report = () => undefined, before }: ReadingOptions = {},
): Map<string, Known> {
  const entries = parseBody(body);
  if (!Array.isArray(entries)) throw strange();
  const found = new Map<string, Known>();
  for (const input of entries) {
    const entry = parseEntry(input);
    if (!entry?.passing) continue;
    const { id, node, createIndex, modifyIndex } = entry;
    const former = before?.get(id);
    const unchanged = former !== undefined && isSame(former, entry);
    const parsed = unchanged ? ({ ok: true, record: former.record } as const) : recordOf(entry);
    const rival = found.get(id);
    if (!parsed.ok) report(id, parsed.reason);
    else if (parsed.record.service !== service) report(id, 'it belongs to another service');
    else if (rival && rival.createIndex <= createIndex) report(id, 'its id was registered before, by another agent');
    else if (!rival && found.size >= MAX_INSTANCES) report(id, `the service has more than ${MAX_INSTANCES} instances`);
    else found.set(id, unchanged ? former : { record: parsed.record, node, createIndex, modifyIndex });
  }
  return found;
}

function isSame(known: Known, entry: Entry): boolean {
  const { node, createIndex, modifyIndex } = known;
  return node === entry.node && createIndex === entry.createIndex && modifyIndex === entry.modifyIndex;
}

function recordsOf(known: ReadonlyMap<string, Known>): readonly InstanceRecord[] {
  return Array.from(known.values(), ({ record }) => record).sort(byId);
}

/** Tells when the last reader has gone. */
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
