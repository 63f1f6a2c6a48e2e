import assert from 'node:assert/strict';
import { consulPolicy } from '@sallyport/registry-consul';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { requireServers } from '../../support/servers/programs.js';
import { ConsulWorld } from './world.js';

describe('where and how registry.consul() reads', function () {
  this.timeout(60_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;

  before(async () => {
    world = await ConsulWorld.start({ servers: 3 });
  });
  after(() => world?.[Symbol.asyncDispose]());
  afterEach(() => world.closeSessions());

  const policy = consulPolicy('web', { reads: ['orders'] });

  it('finds instances in the datacenter that is named', async () => {
    const { session: owner } = await world.open('orders');
    const { session } = await world.open('web', { policy, options: { datacenter: 'dc1' } });
    await owner.register(instanceOf('orders'));

    await eventually(async () => assert.equal((await session.list('orders')).length, 1));
  });

  it('tells a datacenter that is not there from an empty one', async () => {
    const { session, events } = await world.open('web', { policy, options: { datacenter: 'elsewhere' } });

    await assert.rejects(session.list('orders'), { status: 'UNAVAILABLE' });
    assert.equal(session.state, 'down');
    assert.ok(events.of('registry-state').length > 0);
  });

  for (const consistency of ['stale', 'consistent'] as const) {
    it(`lists and follows instances with consistency ${consistency}, from whatever server`, async () => {
      const { session: owner } = await world.open('orders');
      const record = instanceOf('orders');
      await owner.register(record);
      for (const address of world.server.addresses) {
        const { session } = await world.open('web', { policy, address, options: { consistency } });
        await eventually(async () => assert.deepEqual(await session.list('orders'), [record]));
      }
    });
  }

  it('reads from a server that has lost the leader with consistency stale, and only so', async () => {
    const { session: owner } = await world.open('orders');
    const record = instanceOf('orders');
    await owner.register(record);
    const leader = await world.server.leader();
    const followers = [0, 1, 2].filter((index) => index !== leader);
    const address = world.server.addresses[followers[0] ?? 0] ?? '';
    const stale = await world.open('web', { policy, address, options: { consistency: 'stale' } });
    const strict = await world.open('web', { policy, address, options: { consistency: 'consistent' } });
    await eventually(async () => assert.deepEqual(await stale.session.list('orders'), [record]));

    await Promise.all([leader, followers[1] ?? 0].map((index) => world.server.kill(index)));

    await eventually(() => assert.rejects(strict.session.list('orders'), { status: 'UNAVAILABLE' }));
    assert.deepEqual(await stale.session.list('orders'), [record]);
    await world.server.restart();
  });
});
