import assert from 'node:assert/strict';
import type { InstanceRecord } from '@sallyport/core';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { contextOf } from '../../support/registry-context.js';
import { Etcdctl } from '../../support/servers/etcdctl.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { EtcdWorld } from './world.js';

const MAX_INSTANCES = 10_000;
/** Of one transaction, in etcd. */
const MAX_OPERATIONS = 120;

describe('registry.etcd() with many instances', function () {
  this.timeout(60_000);
  requireServers('etcd-3.5', 'etcdctl-3.5');
  let world: EtcdWorld;

  before(async () => {
    world = await EtcdWorld.start({ version: '3.5' });
  });
  after(() => world?.[Symbol.asyncDispose]());
  afterEach(() => world.closeSessions());

  /** As if by processes that are not ours to start by the thousand. */
  async function store(values: ReadonlyMap<string, string>): Promise<void> {
    using folder = temporaryFolder();
    const files = await world.identityOf('root').write(folder.path, { name: 'root' });
    const etcdctl = new Etcdctl({ program: 'etcdctl-3.5', files });
    const lines = [...values].map(([key, value]) => `put ${key} ${JSON.stringify(value)}`);
    while (lines.length > 0) {
      // No conditions, these operations if they hold, none if not.
      await etcdctl.run(world.server.addresses, ['txn'], `\n${lines.splice(0, MAX_OPERATIONS).join('\n')}\n\n\n`);
    }
  }

  it('knows 10,000 instances, no more, and says so', async () => {
    const { session, events } = await world.open('caller', { reads: ['crowd'] });
    const records = Array.from({ length: MAX_INSTANCES + 50 }, () => instanceOf('crowd'));
    await store(new Map(records.map((record) => [keyOf(record), JSON.stringify({ owner: 'x', record })])));

    const from = performance.now();
    const iterator = session.watch('crowd')[Symbol.asyncIterator]();
    const { value } = await iterator.next();
    console.log(`      10,000 instances listed by a watcher in ${Math.round(performance.now() - from)} ms`);

    assert.equal(value?.type === 'snapshot' && value.instances.length, MAX_INSTANCES);
    assert.equal((await session.list('crowd')).length, MAX_INSTANCES);
    await world.server.put(keyOf(instanceOf('crowd', { id: 'crowd-zzz' })), '{}');
    await eventually(() => {
      const refused = events.of('registry-record-refused');
      assert.ok(refused.some(({ detail }) => detail === 'the service has more than 10000 instances'));
    });
    await iterator.return?.();
  });

  it('reads on when somebody stores more than fits into a message', async () => {
    const { session } = await world.open('patient', { reads: ['flooded'] });
    const record = instanceOf('flooded');
    const huge = 'x'.repeat(1_200_000);
    const flood = Array.from(
      { length: 16 },
      (_, i) => [`/sallyport/v1/services/flooded/flooded-big-${i}`, huge] as const,
    );
    for (const [key, value] of flood) await store(new Map([[key, value]]));
    await store(new Map([[keyOf(record), JSON.stringify({ owner: 'x', record })]]));

    const listed = await session.list('flooded');

    assert.deepEqual(
      listed.map(({ id }) => id),
      [record.id],
    );
  });

  it('follows a service once and over one connection, however many services of the process call it', async () => {
    await using proxy = await FaultProxy.start(world.server.address);
    const registry = world.registryOf('shared', { endpoints: [proxy.address] });
    await world.allow('shared');
    const sessions = await Promise.all([1, 2, 3].map(() => registry.open(contextOf('shared'))));
    const iterators = sessions.map((session) => session.watch('shared')[Symbol.asyncIterator]());
    await Promise.all(iterators.map((iterator) => iterator.next()));

    assert.equal(proxy.accepted, 1);
    await sessions[0]?.close();
    await sessions[1]?.register(instanceOf('shared'));
    const next = await iterators[2]?.next();
    assert.equal(next?.value?.type, 'added');
    assert.equal(proxy.accepted, 1);

    await Promise.all(sessions.map((session) => session.close()));
    await eventually(() => assert.equal(proxy.open, 0));
  });

  it('goes to another member when one is dead', async () => {
    const dead = 'https://127.0.0.1:1';
    const endpoints = [dead, world.server.address, dead];

    for (let i = 0; i < 4; i++) {
      const { session } = await world.open('failing-over', { endpoints });
      assert.deepEqual(await session.list('failing-over'), []);
      assert.equal(session.state, 'fresh');
    }
  });
});

function keyOf({ service, id }: InstanceRecord): string {
  return `/sallyport/v1/services/${service}/${id}`;
}
