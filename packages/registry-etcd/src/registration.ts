import { randomInt } from 'node:crypto';
import { CallError, type InstanceRecord } from '@sallyport/core';
import { Backoff, type Clock } from '@sallyport/core/spi';
import { leaseGrant, leaseKeepAlive, leaseRevoke, putIfUnchanged, range } from './api/messages.js';
import type { Cluster } from './cluster.js';
import { hasCode, messageOf } from './errors.js';
import type { Ask } from './listing.js';
import type { ResolvedOptions } from './options.js';
import { encodeStored, ownerOf } from './stored-record.js';

/** etcd takes ids of 64 bits, we stay where JavaScript's numbers are exact. */
const MAX_LEASE_ID = 2 ** 48 - 1;
/** Between two of them the key has changed under our hands; somebody who goes on like that means harm. */
const PUT_ATTEMPTS = 4;

export interface RegistrationOptions {
  readonly key: string;
  /** The mark of the session: what bears it is its own. */
  readonly owner: string;
  readonly cluster: Cluster;
  readonly options: ResolvedOptions;
  readonly clock: Clock;
  /** Undefined: the heartbeat is all right again. */
  readonly onProblem: (problem: string | undefined) => void;
}

/** One own instance: its key, under a lease of its own that is kept alive until it is withdrawn. */
export class Registration {
  readonly #options: RegistrationOptions;
  readonly #key: Buffer;
  readonly #closing = new AbortController();
  readonly #backoff: Backoff;
  #record: InstanceRecord;
  #lease: number | undefined;
  /** The revision of our last put, as far as we know; 0: there is none. */
  #modifiedAt = 0;
  #turn: Promise<unknown> = Promise.resolve();
  /** Writers at work or waiting for their turn. */
  #writing = 0;
  #alive = false;

  constructor(record: InstanceRecord, options: RegistrationOptions) {
    this.#record = record;
    this.#options = options;
    this.#key = Buffer.from(options.key);
    const { retry, leaseTtlMs } = options.options;
    this.#backoff = new Backoff({
      clock: options.clock,
      firstMs: retry.firstBackoffMs,
      // Many attempts must fit into the life of a lease.
      maxMs: Math.min(retry.maxBackoffMs, leaseTtlMs / 15),
    });
  }

  /** As it was published last. */
  get record(): InstanceRecord {
    return this.#record;
  }

  /** Whether it has been published once, so that it is kept alive. */
  get published(): boolean {
    return this.#alive;
  }

  /** Rejects with ALREADY_EXISTS when the key is another's. After the first success heartbeats keep it alive. */
  async publish(record: InstanceRecord): Promise<void> {
    const { cluster } = this.#options;
    const { signal } = this.#closing;
    await this.#inTurn(() => this.#put(record, (method, request) => cluster.insist(method, request, signal)));
    if (!this.#alive) void this.#keepAlive();
    this.#alive = true;
  }

  /** Deletes the key with its lease. Rejects when etcd is out of reach: the lease then passes by itself. */
  async withdraw(): Promise<void> {
    this.#closing.abort();
    await this.#inTurn(async () => {
      const id = this.#lease;
      this.#lease = undefined;
      if (id === undefined) return;
      try {
        await this.#options.cluster.insist(leaseRevoke, { id });
      } catch (error) {
        if (!hasCode(error, 'NOT_FOUND')) throw error;
      }
    });
  }

  async #keepAlive(): Promise<void> {
    const { clock, options, onProblem } = this.#options;
    const { signal } = this.#closing;
    let problem: string | undefined;
    while (!signal.aborted) {
      if (problem === undefined) await pause(clock, options.leaseTtlMs / 3, signal);
      else await this.#backoff.wait(signal);
      if (signal.aborted) return;
      const before = problem;
      try {
        await this.#beat();
        problem = undefined;
        this.#backoff.reset();
      } catch (error) {
        problem = messageOf(error);
      }
      if (!signal.aborted && (problem === undefined) !== (before === undefined)) onProblem(problem);
    }
  }

  /**
   * Prolongs the lease, also while an update is on its way, and looks whether the key is still ours; what is gone is put
   * again.
   */
  async #beat(): Promise<void> {
    const { cluster, options } = this.#options;
    const timeoutMs = Math.min(options.timeouts.requestMs, Math.floor(options.leaseTtlMs / 3));
    const ask: Ask = (method, request) => cluster.ask(method, request, timeoutMs);
    const id = this.#lease;
    if (id !== undefined) {
      const { ttl } = await ask(leaseKeepAlive, { id });
      if (ttl === 0 && this.#lease === id) this.#lease = undefined;
    }
    // Whoever is writing finds out for himself.
    if (this.#writing === 0) await this.#inTurn(() => this.#confirm(ask));
  }

  async #confirm(ask: Ask): Promise<void> {
    if (this.#closing.signal.aborted) return;
    if (this.#lease !== undefined) {
      const { items } = await ask(range, { key: this.#key, keysOnly: true });
      if (items[0]?.lease === this.#lease && items[0].modRevision === this.#modifiedAt) return;
    }
    await this.#put(this.#record, ask);
  }

  /** Puts the record unless the key holds what is not ours: compare and put are one transaction. */
  async #put(record: InstanceRecord, ask: Ask): Promise<void> {
    const { owner } = this.#options;
    const value = encodeStored(owner, record);
    for (let attempt = 0; attempt < PUT_ATTEMPTS; attempt++) {
      const lease = this.#lease ?? (await this.#grant(ask));
      this.#lease = lease;
      try {
        const request = { key: this.#key, value, lease, ifModifiedAt: this.#modifiedAt };
        const { done, revision, found } = await ask(putIfUnchanged, request);
        if (done) {
          this.#modifiedAt = revision;
          this.#record = record;
          return;
        }
        if (found && ownerOf(found.value) !== owner) throw new TakenError(record.id);
        this.#modifiedAt = found?.modRevision ?? 0;
        // It was put, but the answer was lost.
        if (found?.lease === lease && found.value.equals(value)) {
          this.#record = record;
          return;
        }
      } catch (error) {
        if (error instanceof TakenError) await this.#giveBack(lease);
        if (!hasCode(error, 'NOT_FOUND')) throw error;
        // The lease has passed between two heartbeats.
        this.#lease = undefined;
      }
    }
    throw new CallError('ABORTED', `the key of ${record.id} in etcd changes faster than it can be written`);
  }

  async #grant(ask: Ask): Promise<number> {
    const id = randomInt(1, MAX_LEASE_ID);
    try {
      await ask(leaseGrant, { id, ttl: this.#options.options.leaseTtlMs / 1000 });
    } catch (error) {
      // The answer to an earlier attempt was lost.
      if (!hasCode(error, 'ALREADY_EXISTS')) throw error;
    }
    return id;
  }

  /** A lease without a key would only wait for its end. */
  async #giveBack(id: number): Promise<void> {
    if (this.#modifiedAt !== 0) return;
    this.#lease = undefined;
    await this.#options.cluster.ask(leaseRevoke, { id }).catch(() => undefined);
  }

  /** One at a time: a heartbeat must not write again what is being withdrawn. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    this.#writing++;
    const result = this.#turn.then(task).finally(() => this.#writing--);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

class TakenError extends CallError {
  constructor(id: string) {
    super('ALREADY_EXISTS', `${id} is registered already, by another participant`);
  }
}

function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      timer.cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = clock.after(ms, done);
    signal.addEventListener('abort', done);
  });
}
