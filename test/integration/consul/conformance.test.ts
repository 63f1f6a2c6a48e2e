import type { RegistrySession } from '@sallyport/core';
import { registryConformance } from '@sallyport/testing';
import { MortalClock } from '../../support/registry-context.js';
import { requireServers } from '../../support/servers/programs.js';
import { ConsulWorld, RotatingToken } from './world.js';

const TTL_MS = 2000;
const policy = 'service_prefix "conformance-" { policy = "write" }\nnode_prefix "" { policy = "read" }';

describe('Consul', function () {
  this.timeout(60_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;
  let token: RotatingToken;

  before(async () => {
    world = await ConsulWorld.start();
    token = new RotatingToken(await world.tokenFor('conformance', policy));
  });
  after(() => world?.[Symbol.asyncDispose]());

  registryConformance(
    {
      name: 'registry.consul()',
      ttlMs: TTL_MS,
      async create() {
        const clocks = new Map<RegistrySession, MortalClock>();
        return {
          async open(participant) {
            const clock = new MortalClock();
            // Each its own registry object: they share nothing but the server.
            const options = { healthCheck: { ttlMs: TTL_MS } };
            const { session } = await world.open(participant, { token, clock, options });
            clocks.set(session, clock);
            return session;
          },
          kill: async (session) => clocks.get(session)?.kill(),
          cleanup: () => world.closeSessions(),
        };
      },
    },
    { describe, it, beforeEach, afterEach },
  );
});
