import { CHAOS_ROUNDS, type Fault, surviveChaos } from '../../support/chaos.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet } from './fleet.js';
import { EtcdWorld } from './world.js';

const OWNERS = 4;

interface Scene {
  readonly world: EtcdWorld;
  readonly proxy: FaultProxy;
  readonly fleet: Fleet;
}

const faults: Readonly<Record<string, Fault<Scene>>> = {
  'SIGKILL and restart': async ({ world }) => {
    await world.server.kill();
    return () => world.server.restart();
  },
  'all connections reset': async ({ proxy }) => {
    proxy.reset();
    return async () => undefined;
  },
  'resets every 50 ms': async ({ proxy }) => {
    proxy.resetEvery(50);
    return async () => proxy.resetEvery(undefined);
  },
  stall: async ({ proxy }) => {
    proxy.stall();
    return async () => {
      proxy.resume();
      proxy.reset(); // else the ping decides how long it takes, and that is another test
    };
  },
  'compaction while disconnected': async ({ world, proxy }) => {
    proxy.stall();
    proxy.reset();
    return async () => {
      await world.server.compact();
      proxy.resume();
    };
  },
  'data wiped': async ({ world }) => {
    await world.server.wipe();
    return async () => undefined;
  },
  'a lease revoked': async ({ world, fleet }) => {
    const [key] = await world.server.keys(`/sallyport/v1/services/${fleet.service}/`);
    // It may pass by itself in this moment.
    if (key) await world.server.revokeLease(key.lease).catch(() => undefined);
    return async () => undefined;
  },
  'certificates rotated': async ({ world, fleet }) => {
    for (const { source } of fleet.owners) {
      source.rotate({ identity: world.identityOf(fleet.service), bundlePem: world.authority.bundlePem });
    }
    return async () => undefined;
  },
};

describe(`registry.etcd() in chaos, ${CHAOS_ROUNDS} rounds`, function () {
  this.timeout(90_000 + CHAOS_ROUNDS * 10_000);
  requireServers('etcd-3.5', 'etcdctl-3.5');

  it('knows exactly who is there after every round', async () => {
    await using world = await EtcdWorld.start({ version: '3.5' });
    await using proxy = await FaultProxy.start(world.server.address);
    const endpoints = [proxy.address];
    const fleet = await Fleet.launch(world, 'chaos', { owners: OWNERS, owner: { endpoints }, reader: { endpoints } });

    await surviveChaos({ world, proxy, fleet }, faults);

    fleet.close();
  });
});
