import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IssuedSource } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { randomNumbers } from '../../support/random.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet } from './fleet.js';
import { ConsulWorld } from './world.js';

const ROUNDS = Number(process.env.SALLYPORT_CHAOS_ROUNDS ?? 20);
const SEED = Number(process.env.SALLYPORT_CHAOS_SEED ?? randomInt(2 ** 32 - 1));
const OWNERS = 4;

interface Scene {
  readonly world: ConsulWorld;
  readonly proxy: FaultProxy;
  readonly fleet: Fleet;
}

/** What can happen to the registry; the round heals it afterwards. */
type Fault = (scene: Scene) => Promise<() => Promise<void>>;

const faults: Readonly<Record<string, Fault>> = {
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

describe(`registry.consul() in chaos, ${ROUNDS} rounds`, function () {
  this.timeout(60_000 + ROUNDS * 15_000);
  requireServers('consul-1.8.7');

  it('knows exactly who is there after every round', async () => {
    console.log(`      chaos: SALLYPORT_CHAOS_SEED=${SEED}`);
    const random = randomNumbers(SEED);
    await using world = await ConsulWorld.start();
    await using proxy = await FaultProxy.start(world.server.address);
    const { address } = proxy;
    const fleet = await Fleet.launch(world, 'chaos', { owners: OWNERS, owner: { address }, reader: { address } });
    const recoveries: number[] = [];

    for (let round = 1; round <= ROUNDS; round++) {
      const names = Object.keys(faults);
      const name = names[random(names.length)] ?? '';
      const heal = await faults[name]?.({ world, proxy, fleet });
      const work = Promise.allSettled(Array.from({ length: OWNERS }, (_, i) => act(fleet, i, random(4), round)));
      await sleep(random(1000));
      await heal?.();
      await work;
      try {
        await Promise.all(fleet.owners.map((_, index) => fleet.insist(index)));
        recoveries.push(await fleet.complete());
      } catch (error) {
        assert.fail(`round ${round} (${name}), seed ${SEED}: ${error}`);
      }
    }

    fleet.view.close();
    fleet.assertDiscreet();
    const sorted = recoveries.sort((a, b) => a - b);
    const [median, worst] = [sorted[Math.floor(sorted.length / 2)] ?? 0, sorted.at(-1) ?? 0];
    console.log(
      `      ${ROUNDS} rounds, 0 wrong or missing; complete after ${median.toFixed(0)} ms (median), ${worst.toFixed(0)} ms (worst)`,
    );
  });
});

/** Whatever becomes of it: the round ends with every instance as its owner wants it. */
async function act(fleet: Fleet, index: number, what: number, round: number): Promise<void> {
  if (what === 0) return;
  if (!fleet.has(index)) await fleet.come(index);
  else if (what === 1) await fleet.leave(index);
  else await fleet.change(index, { metadata: { round: String(round) } });
}
