import { registry } from '@sallyport/core';
import { registryConformance } from '@sallyport/testing';
import { contextOf } from '../../support/registry-context.js';

registryConformance(
  {
    name: 'registry.memory()',
    async create() {
      const shared = registry.memory();
      return { open: (participant) => shared.open(contextOf(participant)), cleanup: async () => undefined };
    },
  },
  { describe, it, beforeEach, afterEach },
);
