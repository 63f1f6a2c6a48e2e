import type { RegistrySession } from '@sallyport/core';
import { registryConformance } from '@sallyport/testing';
import { etcdPki, join, type Party } from './etcd-party.js';
import { EtcdServer } from '../../support/servers/etcd-server.js';
import { requireServers } from '../../support/servers/programs.js';

const TTL_MS = 3000;

for (const version of ['3.4', '3.5'] as const) {
  describe(`etcd ${version}`, function () {
    this.timeout(30_000);
    const pki = etcdPki();
    let server: EtcdServer;

    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    before(async () => {
      server = await EtcdServer.start({ pki, version });
      // The suite makes up names of services as it goes: one user for all of them.
      await server.auth.role('suite', [{ access: 'readwrite', prefix: '/sallyport/v1/services/' }]);
      await server.auth.user('suite', { roles: ['suite'] });
    });
    after(() => server?.stop());

    registryConformance(
      {
        name: `registry.etcd() on etcd ${version}`,
        ttlMs: TTL_MS,
        async create() {
          const parties = new Map<RegistrySession, Party>();
          return {
            async open() {
              // Each its own registry object: they share nothing but the server.
              const party = await join('suite', {
                server,
                pki,
                options: { leaseTtlMs: TTL_MS, allowRootUser: { reason: 'one user for all services of the suite' } },
              });
              parties.set(party.session, party);
              return party.session;
            },
            kill: async (session) => parties.get(session)?.clock.kill(),
            cleanup: async () => undefined,
          };
        },
      },
      { describe, it, beforeEach, afterEach },
    );
  });
}
