import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EventBus, type RegistryContext, systemClock } from '@sallyport/core/spi';
import { ConsulWorld } from '@sallyport/test/consul-world';
import { EtcdWorld } from '@sallyport/test/etcd-world';
import { consulPolicy, type Registry, type RegistrySession, registry, silentLogger } from 'sallyport';

/** A registry of its own kind and two participants, each with a session of its own. */
export interface RegistryPlace extends AsyncDisposable {
  readonly name: string;
  readonly service: string;
  readonly owner: RegistrySession;
  readonly watcher: RegistrySession;
}

/** So long that no heartbeat falls into a measurement: the owner stands for a thousand processes, which send their own. */
const TTL_MS = 3_600_000;
const service = 'orders';

/** Each opens one, with its server where there is one: real, over mutual TLS, with tokens and roles of the templates. */
export const registryPlaces: readonly (() => Promise<RegistryPlace>)[] = [
  async () => {
    const shared = registry.memory();
    return await placeOn('memory', [shared, shared], async () => undefined);
  },
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'sallyport-bench-'));
    const local = () => registry.local({ directory, ttlMs: TTL_MS });
    return await placeOn('local', [local(), local()], () => rm(directory, { recursive: true, force: true }));
  },
  async () => {
    const world = await ConsulWorld.start();
    const healthCheck = { ttlMs: TTL_MS };
    const owner = await world.open(service, { options: { healthCheck } });
    const watcher = await world.open('web', { policy: consulPolicy('web', { reads: [service] }) });
    return place('Consul 1.8', [owner.session, watcher.session], () => world[Symbol.asyncDispose]());
  },
  () => etcdPlace('3.4'),
  () => etcdPlace('3.5'),
];

async function etcdPlace(version: '3.4' | '3.5'): Promise<RegistryPlace> {
  const world = await EtcdWorld.start({ version });
  const owner = await world.open(service, { options: { leaseTtlMs: TTL_MS } });
  const watcher = await world.open('web', { reads: [service] });
  return place(`etcd ${version}`, [owner.session, watcher.session], () => world[Symbol.asyncDispose]());
}

async function placeOn(
  name: string,
  [first, second]: readonly [Registry, Registry],
  remove: () => Promise<void>,
): Promise<RegistryPlace> {
  const sessions = [await first.open(contextOf(service)), await second.open(contextOf('web'))] as const;
  return place(name, sessions, remove);
}

function place(
  name: string,
  [owner, watcher]: readonly [RegistrySession, RegistrySession],
  remove: () => Promise<void>,
): RegistryPlace {
  return {
    name,
    service,
    owner,
    watcher,
    async [Symbol.asyncDispose]() {
      await watcher.close();
      await owner.close();
      await remove();
    },
  };
}

function contextOf(participant: string): RegistryContext {
  return {
    service: participant,
    clock: systemClock,
    events: new EventBus(participant, systemClock, silentLogger),
    tls: {
      current() {
        throw new Error('this registry has no use for a certificate');
      },
      suspended: undefined,
      onChange: () => () => undefined,
      close: () => undefined,
    },
  };
}
