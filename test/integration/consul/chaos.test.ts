import assert from 'node:assert/strict';
import type { IssuedSource } from '@sallyport/testing';
import { CHAOS_ROUNDS, type Fault, surviveChaos } from '../../support/chaos.js';
import { eventually } from '../../support/eventually.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet } from './fleet.js';
import { ConsulWorld } from './world.js';

const OWNERS = 4;

interface Scene {
  readonly world: ConsulWorld;
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
    return async () => proxy.resume();
  },
  'data wiped': async ({ world }) => {
    await world.server.wipe();
    return async () => undefined;
  },
  'an instance removed by somebody': async ({ world, fleet }) => {
    const services = (await world.server.api('GET', '/v1/agent/services')) as Record<string, { Service: string }>;
    const id = Object.keys(services).find((key) => services[key]?.Service === fleet.service);
    if (id) await world.server.api('PUT', `/v1/agent/service/deregister/${id}`);
    return async () => undefined;
  },
  'token rotated': async ({ world, fleet }) => {
    const [owner] = fleet.owners;
    assert.ok(owner);
    const rotations = owner.events.of('registry-credential-rotated').length;
    const { secretId } = await world.tokenFor(fleet.service);
    owner.token.value = secretId;
    return async () => {
      if (!fleet.has(0)) return;
      // An owner that could not register has nothing to tell.
      const rotated = () => assert.ok(owner.events.of('registry-credential-rotated').length > rotations);
      await eventually(rotated, 3000).catch(() => undefined);
    };
  },
  'certificates rotated': async ({ world, fleet }) => {
    for (const { tls } of fleet.owners) {
      (tls as IssuedSource).rotate({
        identity: world.authority.issue({ id: `spiffe://test.example/svc/${fleet.service}` }),
        bundlePem: world.authority.bundlePem,
      });
    }
    return async () => undefined;
  },
};

describe(`registry.consul() in chaos, ${CHAOS_ROUNDS} rounds`, function () {
  this.timeout(60_000 + CHAOS_ROUNDS * 15_000);
  requireServers('consul-1.8.7');

  it('knows exactly who is there after every round', async () => {
    await using world = await ConsulWorld.start();
    await using proxy = await FaultProxy.start(world.server.address);
    const { address } = proxy;
    const fleet = await Fleet.launch(world, 'chaos', { owners: OWNERS, owner: { address }, reader: { address } });

    await surviveChaos({ world, proxy, fleet }, faults);

    fleet.view.close();
    fleet.assertDiscreet();
  });
});
