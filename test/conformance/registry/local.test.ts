import { type RegistrySession, registry } from '@sallyport/core';
import { registryConformance } from '@sallyport/testing';
import { contextOf, MortalClock } from '../../support/registry-context.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const TTL_MS = 1000;

registryConformance(
  {
    name: 'registry.local()',
    ttlMs: TTL_MS,
    async create() {
      const folder = temporaryFolder();
      const clocks = new Map<RegistrySession, MortalClock>();
      return {
        async open(participant) {
          const clock = new MortalClock();
          // Each its own registry object: they share nothing but the folder.
          const own = registry.local({ directory: folder.path, ttlMs: TTL_MS, pollMs: 100 });
          const session = await own.open(contextOf(participant, { clock }));
          clocks.set(session, clock);
          return session;
        },
        kill: async (session) => clocks.get(session)?.kill(),
        cleanup: async () => folder[Symbol.dispose](),
      };
    },
  },
  { describe, it, beforeEach, afterEach },
);
