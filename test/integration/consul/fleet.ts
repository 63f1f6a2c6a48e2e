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
  #records: InstanceRecord[];

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
    await Promise.all(fleet.#records.map((record, i) => owners[i]?.session.register(record)));
    await fleet.complete();
    return fleet;
  }

  private constructor(service: string, owners: readonly Participant[], reader: Participant) {
    this.service = service;
    this.owners = owners;
    this.reader = reader;
    this.#records = owners.map(() => instanceOf(service));
    this.view = followService({
      service,
      session: reader.session,
      registry: 'consul',
      events: reader.events,
      clock: systemClock,
      endpoints: { allowLoopback: true },
    });
  }

  get records(): readonly InstanceRecord[] {
    return this.#records;
  }

  /** Changes one instance, as its owner. */
  async change(index: number, fields: Partial<InstanceRecord>): Promise<void> {
    const { record, owner } = this.#member(index);
    const changed = { ...record, ...fields };
    await owner.session.update(changed);
    this.#records = this.#records.with(index, changed);
  }

  async leave(index: number): Promise<void> {
    const { record, owner } = this.#member(index);
    await owner.session.deregister(record.id);
    this.#records = this.#records.toSpliced(index, 1);
  }

  /** Resolves with the time it took, ms, until the reader knew exactly what is there: none wrong, none missing. */
  async complete(deadlineMs = 20_000): Promise<number> {
    const from = performance.now();
    const expected = [...this.#records].sort(byId);
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

  #member(index: number): { record: InstanceRecord; owner: Participant } {
    const [record, owner] = [this.#records[index], this.owners[index]];
    assert.ok(record && owner);
    return { record, owner };
  }
}

function plain(records: readonly InstanceRecord[]): InstanceRecord[] {
  return records.map((record) => instanceOf(record.service, record));
}

export function printRecovery(fault: string, ms: number): void {
  console.log(`      ${fault}: complete again after ${Math.round(ms)} ms`);
}
