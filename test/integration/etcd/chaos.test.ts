import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomNumbers } from '../../support/random.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet } from './fleet.js';
import { EtcdWorld } from './world.js';

const ROUNDS = Number(process.env.SALLYPORT_CHAOS_ROUNDS ?? 20);
const SEED = Number(process.env.SALLYPORT_CHAOS_SEED ?? randomInt(2 ** 32 - 1));
const OWNERS = 4;

/** What can happen to the registry; the round heals it afterwards. */
type Fault = (scene: { world: EtcdWorld; proxy: FaultProxy; fleet: Fleet }) => Promise<() => Promise<void>>;

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

describe(`registry.etcd() in chaos, ${ROUNDS} rounds`, function () {
  this.timeout(90_000 + ROUNDS * 10_000);
  requireServers('etcd-3.5', 'etcdctl-3.5');

  it('knows exactly who is there after every round', async () => {
    console.log(`      chaos: SALLYPORT_CHAOS_SEED=${SEED}`);
    const random = randomNumbers(SEED);
    await using world = await EtcdWorld.start({ version: '3.5' });
    await using proxy = await FaultProxy.start(world.server.address);
    const endpoints = [proxy.address];
    const fleet = await Fleet.launch(world, 'chaos', { owners: OWNERS, owner: { endpoints }, reader: { endpoints } });
    const recoveries: number[] = [];

    for (let round = 1; round <= ROUNDS; round++) {
      const names = Object.keys(faults);
      const name = names[random(names.length)] ?? '';
      const heal = await faults[name]?.({ world, proxy, fleet });
      const work = Promise.allSettled(Array.from({ length: OWNERS }, (_, i) => act(fleet, i, random(4), round)));
      await sleep(random(1000));
      await heal?.();
      const healedAt = performance.now();
      await work;
      await settle(fleet);
      try {
        await fleet.complete();
        recoveries.push(performance.now() - healedAt);
      } catch (error) {
        assert.fail(`round ${round} (${name}), seed ${SEED}: ${error}`);
      }
    }

    fleet.close();
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

/** An owner whose work failed does it again, as a service would. */
async function settle(fleet: Fleet): Promise<void> {
  await Promise.all(fleet.owners.map((_, index) => fleet.insist(index)));
}
