import { CallError, type InstanceRecord } from '@sallyport/core';
import { Backoff } from '@sallyport/core/spi';
import type { Connection } from './connection.js';
import { checkIdOf, definitionOf, ownerOf, parseEntry } from './entry.js';
import { isNotFound, isUnavailable } from './failure.js';
import type { ConsulRequests } from './requests.js';
import { parseBody, strange } from './requests.js';

export interface OwnInstanceOptions {
  /** The mark of the session that registered it. */
  readonly owner: string;
  readonly connection: Connection;
  /** Aborts retries. */
  readonly closing: AbortSignal;
}

/** One instance that this participant has registered: published, kept alive, withdrawn. One thing at a time. */
export class OwnInstance {
  #record: InstanceRecord;
  readonly #options: OwnInstanceOptions;
  /** Of the token it was registered with; 0 while it is not registered. */
  #generation = 0;
  /** Its check has never passed: Consul lists it to nobody. */
  #isCritical = false;
  #withdrawn = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(record: InstanceRecord, options: OwnInstanceOptions) {
    this.#record = record;
    this.#options = options;
  }

  get record(): InstanceRecord {
    return this.#record;
  }

  /** Whether Consul knows it with the token in use. */
  get isCurrent(): boolean {
    return this.#generation === this.#options.connection.credential.generation;
  }

  /** Rejects with ALREADY_EXISTS when it is somebody else's, INVALID_ARGUMENT when it does not fit, UNAVAILABLE. */
  publish(record: InstanceRecord): Promise<void> {
    const { timeouts } = this.#options.connection.options;
    // Who leaves does not wait long for a Consul that hangs: the calls that end tell the others as well.
    const forMs = record.state === 'draining' ? timeouts.requestMs : timeouts.operationMs;
    return this.#inTurn(async () => {
      await this.#retrying(forMs, () => this.#put(record));
      this.#record = record;
    });
  }

  /** Rejects when it could not be kept alive, this time. */
  beat(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#withdrawn) return;
      try {
        await this.#pass();
      } catch (error) {
        if (!isNotFound(error)) throw error;
        // Consul has lost it, or has waited too long for a heartbeat and removed it.
        this.#generation = 0;
      }
      if (!this.isCurrent) await this.#put(this.#record);
    });
  }

  /** Rejects when Consul could not be told; the heartbeat has ended all the same. */
  withdraw(): Promise<void> {
    const { timeouts } = this.#options.connection.options;
    this.#withdrawn = true;
    return this.#inTurn(async () => {
      if (this.#generation === 0) return;
      // It expires anyway: not worth a long wait at the end of a process.
      await this.#retrying(timeouts.requestMs, () => this.#remove());
      this.#generation = 0;
    });
  }

  async #put(record: InstanceRecord): Promise<void> {
    const { connection, owner } = this.#options;
    const definition = definitionOf(record, owner, connection.options);
    const isNew = this.#generation === 0;
    if (isNew) await this.#requireFree(record);
    // Before the request: a token that changes meanwhile makes the next heartbeat register once more.
    const { generation } = connection.credential;
    await connection.perform((requests, token) => requests.register(token, definition));
    this.#generation = generation;
    // Whoever is registered again keeps the status of the check.
    if (isNew) this.#isCritical = true;
    if (this.#isCritical) await this.#pass();
  }

  async #pass(): Promise<void> {
    await this.#perform((requests, token) => requests.pass(token, checkIdOf(this.#record.id)));
    this.#isCritical = false;
  }

  /** The agent removes it from the catalogue with the token it was registered with: that one must still be good. */
  async #remove(): Promise<void> {
    const { connection, owner } = this.#options;
    await connection.credential.refresh().catch(() => false);
    if (!this.isCurrent) {
      const definition = definitionOf(this.#record, owner, connection.options);
      await this.#perform((requests, token) => requests.register(token, definition));
    }
    try {
      await this.#perform((requests, token) => requests.deregister(token, this.#record.id));
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  /** The agent would overwrite in silence, and so would the catalogue: what is under this id must be our own, or nothing. */
  async #requireFree({ id, service }: InstanceRecord): Promise<void> {
    const found = await this.#perform(async (requests, token) => {
      const [ofAgent, listed] = await Promise.all([
        requests.ofAgent(token, id),
        requests.instances(token, service, { id }),
      ]);
      return [...Object.values(asObject(ofAgent)), ...asList(parseBody(listed.body))];
    });
    for (const item of found) {
      const owner = ownerOf(parseEntry(item)?.service ?? item);
      if (owner !== this.#options.owner) {
        throw new CallError('ALREADY_EXISTS', `${id} is registered already, by another participant`);
      }
    }
  }

  #perform<T>(request: (requests: ConsulRequests, token: string) => Promise<T>): Promise<T> {
    return this.#options.connection.perform(request);
  }

  /** All of these may be done twice, so a broken connection costs a retry, no more. */
  async #retrying(forMs: number, operation: () => Promise<void>): Promise<void> {
    const { connection, closing } = this.#options;
    const { clock } = connection.context;
    const { retry } = connection.options;
    const backoff = new Backoff({ clock, ...retry, maxMs: Math.min(retry.maxMs, forMs / 4) });
    const giveUpAt = performance.now() + forMs;
    for (;;) {
      try {
        return await operation();
      } catch (error) {
        if (!isUnavailable(error) || closing.aborted || performance.now() >= giveUpAt) throw error;
      }
      await backoff.wait(closing);
    }
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(task);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function asObject(value: unknown): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw strange();
  return value;
}

function asList(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw strange();
  return value;
}
