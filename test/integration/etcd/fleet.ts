import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import type { InstanceRecord } from '@sallyport/core';
import { byId, followService, type RegistryView, systemClock } from '@sallyport/core/spi';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import type { EtcdWorld, Participant, ParticipantOptions } from './world.js';

export interface FleetOptions {
  /** Default 3. */
  readonly owners?: number;
  /** The owners share a registry object, and with it a connection. Default false: as if each were a process of its own. */
  readonly oneProcess?: boolean;
  readonly owner?: ParticipantOptions;
  readonly reader?: ParticipantOptions;
}

/** Instances of one service, each with an owner of its own, and somebody who looks for them. */
export class Fleet {
  readonly service: string;
  readonly owners: readonly Participant[];
  readonly reader: Participant;
  readonly view: RegistryView;
  readonly #world: EtcdWorld;
  readonly #records = new Map<number, InstanceRecord>();
  readonly #gone = new Map<number, string>();
  #fewest = Number.POSITIVE_INFINITY;

  static async launch(world: EtcdWorld, service: string, parts: FleetOptions = {}): Promise<Fleet> {
    const owners: Participant[] = [];
    const first = await world.open(service, parts.owner);
    owners.push(first);
    while (owners.length < (parts.owners ?? 3)) {
      // One user for all instances of a service: so is its password.
      const { source, registry } = parts.oneProcess ? first : { source: world.sourceOf(service), registry: undefined };
      owners.push(await world.openAs(service, { ...parts.owner, source, registry }, first.password));
    }
    const reader = await world.open(`${service}-reader`, { reads: [service], ...parts.reader });
    const fleet = new Fleet(world, service, owners, reader);
    await Promise.all(owners.map((owner, i) => owner.session.register(fleet.#made(i))));
    await fleet.complete();
    fleet.#fewest = owners.length;
    return fleet;
  }

  private constructor(world: EtcdWorld, service: string, owners: readonly Participant[], reader: Participant) {
    this.#world = world;
    this.service = service;
    this.owners = owners;
    this.reader = reader;
    this.view = followService({
      service,
      session: reader.session,
      registry: 'etcd',
      events: reader.events,
      clock: systemClock,
      endpoints: { allowLoopback: true },
    });
    this.view.onChange(() => {
      this.#fewest = Math.min(this.#fewest, this.known);
    });
  }

  /** How many instances the reader knows, whatever happens to etcd. */
  get known(): number {
    return this.view.instances().length;
  }

  /** The fewest that it knew at any time since the fleet was complete. */
  get fewestKnown(): number {
    return this.#fewest;
  }

  /** Changes one instance, as its owner. */
  async change(index: number, fields: Partial<InstanceRecord>): Promise<void> {
    const record = { ...this.recordOf(index), ...fields };
    await this.owners[index]?.session.update(record);
    this.#records.set(index, record);
  }

  async leave(index: number): Promise<void> {
    const { id } = this.recordOf(index);
    this.#gone.set(index, id);
    this.#records.delete(index);
    await this.owners[index]?.session.deregister(id);
  }

  async come(index: number): Promise<void> {
    await this.owners[index]?.session.register(this.#made(index));
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

  recordOf(index: number): InstanceRecord {
    const record = this.#records.get(index);
    assert.ok(record, `instance ${index} is not there`);
    return record;
  }

  /**
   * Resolves with the time it took, ms, until the reader and etcd itself held exactly what is there: none wrong, none
   * missing, and each under a lease.
   */
  async complete(deadlineMs = 20_000): Promise<number> {
    const from = performance.now();
    const expected = plain([...this.#records.values()].sort(byId));
    await eventually(() => {
      assert.deepEqual(plain(this.view.instances()), expected);
      assert.equal(this.view.state, 'fresh');
    }, deadlineMs);
    const took = performance.now() - from;
    await eventually(async () => {
      assert.deepEqual(plain(await this.reader.session.list(this.service)), expected);
      const keys = await this.#world.server.keys(`/sallyport/v1/services/${this.service}/`);
      assert.equal(keys.length, expected.length);
      assert.ok(keys.every(({ lease }) => lease !== '0'));
    }, deadlineMs);
    return took;
  }

  /** T40: no password in anything that was said. */
  assertDiscreet(): void {
    for (const { events, password } of [...this.owners, this.reader]) {
      if (!password) continue;
      for (const said of [JSON.stringify(events.all), inspect(events.all, { depth: 9 })]) {
        assert.ok(!said.includes(password.value), 'an event holds a password');
      }
    }
  }

  close(): void {
    this.view.close();
  }

  #made(index: number): InstanceRecord {
    const record = instanceOf(this.service);
    this.#records.set(index, record);
    return record;
  }
}

function plain(records: readonly InstanceRecord[]): InstanceRecord[] {
  return records.map((record) => instanceOf(record.service, record));
}

export function printRecovery(fault: string, ms: number): void {
  console.log(`      ${fault}: complete again after ${Math.round(ms)} ms`);
}
