import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import type { InstanceRecord } from '@sallyport/core';
import { byId, followService, type RegistryView, systemClock } from '@sallyport/core/spi';
import { consulPolicy } from '@sallyport/registry-consul';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import type { ConsulWorld, Participant, ParticipantOptions } from './world.js';

/** Short times, so that tests of expiry are short. */
export const quick = {
  healthCheck: { ttlMs: 3000, heartbeatMs: 500 },
  timeouts: { requestMs: 1000, operationMs: 5000, waitMs: 2000 },
  retry: { firstMs: 50, maxMs: 500 },
  emptyGraceMs: 10_000,
} as const;

export interface FleetOptions {
  readonly owners?: number;
  readonly owner?: ParticipantOptions;
  readonly reader?: ParticipantOptions;
}

/** Instances of one service, each with an owner of its own, and somebody who looks for them. */
export class Fleet {
  readonly service: string;
  readonly owners: readonly Participant[];
  readonly reader: Participant;
  readonly view: RegistryView;
  readonly #records = new Map<number, InstanceRecord>();
  readonly #gone = new Map<number, string>();

  static async launch(world: ConsulWorld, service: string, parts: FleetOptions = {}): Promise<Fleet> {
    const options = { ...quick };
    const owners: Participant[] = [];
    for (let i = 0; i < (parts.owners ?? 3); i++) {
      owners.push(await world.open(service, { ...parts.owner, options: { ...options, ...parts.owner?.options } }));
    }
    const reader = await world.open(`${service}-reader`, {
      policy: consulPolicy(`${service}-reader`, { reads: [service] }),
      ...parts.reader,
      options: { ...options, ...parts.reader?.options },
    });
    const fleet = new Fleet(service, owners, reader);
    await Promise.all(owners.map((_, index) => fleet.come(index)));
    await fleet.complete();
    return fleet;
  }

  private constructor(service: string, owners: readonly Participant[], reader: Participant) {
    this.service = service;
    this.owners = owners;
    this.reader = reader;
    this.view = followService({
      service,
      session: reader.session,
      registry: 'consul',
      events: reader.events,
      clock: systemClock,
      endpoints: { allowLoopback: true },
    });
  }

  async come(index: number): Promise<void> {
    const record = instanceOf(this.service);
    this.#records.set(index, record);
    await this.owners[index]?.session.register(record);
  }

  /** Changes one instance, as its owner. */
  async change(index: number, fields: Partial<InstanceRecord>): Promise<void> {
    const changed = { ...this.#recordOf(index), ...fields };
    await this.owners[index]?.session.update(changed);
    this.#records.set(index, changed);
  }

  async leave(index: number): Promise<void> {
    const { id } = this.#recordOf(index);
    this.#gone.set(index, id);
    this.#records.delete(index);
    await this.owners[index]?.session.deregister(id);
  }

  /** Registers the instance as it should be, or sees to it that it is gone: for when it is not known what became of it. */
  async insist(index: number): Promise<void> {
    const [owner, record, gone] = [this.owners[index], this.#records.get(index), this.#gone.get(index)];
    if (gone) await owner?.session.deregister(gone);
    if (record) await owner?.session.register(record);
  }

  has(index: number): boolean {
    return this.#records.has(index);
  }

  /** Resolves with the time it took, ms, until the reader knew exactly what is there: none wrong, none missing. */
  async complete(deadlineMs = 20_000): Promise<number> {
    const from = performance.now();
    const expected = [...this.#records.values()].sort(byId);
    await eventually(() => {
      assert.deepEqual(plain(this.view.instances()), plain(expected));
      assert.equal(this.view.state, 'fresh');
    }, deadlineMs);
    const took = performance.now() - from;
    await eventually(async () =>
      assert.deepEqual(plain(await this.reader.session.list(this.service)), plain(expected)),
    );
    return took;
  }

  /** What the reader knows, whatever happens to the registry. */
  get known(): number {
    return this.view.instances().length;
  }

  /** T40: no token in anything that was said. */
  assertDiscreet(): void {
    for (const { events, token } of [...this.owners, this.reader]) {
      for (const said of [JSON.stringify(events.all), inspect(events.all, { depth: 9 })]) {
        assert.ok(!said.includes(token.value), 'an event holds a token');
      }
    }
  }

  #recordOf(index: number): InstanceRecord {
    const record = this.#records.get(index);
    assert.ok(record, `instance ${index} is not there`);
    return record;
  }
}

function plain(records: readonly InstanceRecord[]): InstanceRecord[] {
  return records.map((record) => instanceOf(record.service, record));
}

export function printRecovery(fault: string, ms: number): void {
  console.log(`      ${fault}: complete again after ${Math.round(ms)} ms`);
}
