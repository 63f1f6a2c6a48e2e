import type { RegistrySession } from '@sallyport/core';
import { registryConformance } from '@sallyport/testing';
import { requireServers } from '../../support/servers/programs.js';
import { EtcdWorld, type Participant } from './world.js';

const TTL_MS = 3000;

for (const version of ['3.4', '3.5'] as const) {
  describe(`etcd ${version}`, function () {
    this.timeout(30_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    let world: EtcdWorld;

    before(async () => {
      world = await EtcdWorld.start({ version });
      // The suite makes up names of services as it goes: one user for all of them.
      await world.server.auth.role('suite', [{ access: 'readwrite', prefix: '/sallyport/v1/services/' }]);
      await world.server.auth.user('suite', { roles: ['suite'] });
    });
    after(() => world?.[Symbol.asyncDispose]());

    registryConformance(
      {
        name: `registry.etcd() on etcd ${version}`,
        ttlMs: TTL_MS,
        async create() {
          const participants = new Map<RegistrySession, Participant>();
          return {
            async open() {
              // Each its own registry object: they share nothing but the server.
              const options = {
                leaseTtlMs: TTL_MS,
                allowRootUser: { reason: 'one user for all services of the suite' },
              };
              const participant = await world.openAs('suite', { options });
              participants.set(participant.session, participant);
              return participant.session;
            },
            kill: async (session) => participants.get(session)?.clock.kill(),
            cleanup: async () => undefined,
          };
        },
      },
      { describe, it, beforeEach, afterEach },
    );
  });
}
