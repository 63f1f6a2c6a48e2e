import assert from 'node:assert/strict';
import { forEachLane } from '../../support/lanes.js';
import { all, failure } from './kit.js';
import { world } from './probe.js';

const MIB = 1024 * 1024;
const SMALL = { server: { limits: { maxMessageBytes: 64 * 1024 } } };

forEachLane(() => {
  describe('limits of messages', () => {
    it('carries messages close to the limit both ways', async () => {
      await using probe = await world({ ask: (request) => request });
      const text = 'x'.repeat(4 * MIB - 1024);

      assert.equal((await probe.client.ask({ text })).text, text);
    });

    it('carries streams of large messages both ways', async () => {
      await using probe = await world({
        async *talk(requests) {
          for await (const request of requests) yield request;
        },
      });
      const large = Array.from({ length: 5 }, (_, n) => ({ n, text: 'x'.repeat(MIB) }));

      assert.deepEqual(await all(probe.client.talk(large)), large);
    });

    it('refuses a request over the limit of the contract, and sends nothing', async () => {
      let served = 0;
      await using probe = await world({
        ask: (request) => {
          served++;
          return request;
        },
      });

      await failure(probe.client.ask({ text: 'x'.repeat(4 * MIB) }), 'RESOURCE_EXHAUSTED');

      assert.equal(served, 0);
      assert.equal((await probe.client.ask({ n: 1 })).n, 1);
    });

    it('refuses a request over the limit of the server', async () => {
      await using probe = await world({ ask: (request) => request }, { server: SMALL });

      await failure(probe.client.ask({ text: 'x'.repeat(70 * 1024) }), 'RESOURCE_EXHAUSTED');

      assert.equal((await probe.client.ask({ n: 1 })).n, 1);
    });

    it('refuses a streamed request over the limit of the server', async () => {
      await using probe = await world(
        {
          async collect(requests) {
            return { n: (await all(requests)).length };
          },
        },
        { server: SMALL },
      );

      await failure(probe.client.collect([{ n: 1 }, { text: 'x'.repeat(70 * 1024) }]), 'RESOURCE_EXHAUSTED');

      assert.equal((await probe.client.collect([{ n: 1 }])).n, 1);
    });

    it('refuses a response over the limit of the contract', async () => {
      await using probe = await world({ ask: ({ n }) => ({ text: 'x'.repeat(n) }) });

      await failure(probe.client.ask({ n: 4 * MIB }), 'RESOURCE_EXHAUSTED');

      assert.equal((await probe.client.ask({ n: 1 })).text, 'x');
    });

    it('refuses a response over the limit of the server', async () => {
      await using probe = await world({ ask: ({ n }) => ({ text: 'x'.repeat(n) }) }, { server: SMALL });

      await failure(probe.client.ask({ n: 70 * 1024 }), 'RESOURCE_EXHAUSTED');

      assert.equal((await probe.client.ask({ n: 1 })).text, 'x');
    });

    it('refuses a streamed response over the limit of the server, and stops the handler', async () => {
      let finished = false;
      await using probe = await world(
        {
          async *list() {
            try {
              yield { n: 1 };
              for (;;) yield { text: 'x'.repeat(70 * 1024) };
            } finally {
              finished = true;
            }
          },
        },
        { server: SMALL },
      );

      await failure(all(probe.client.list({})), 'RESOURCE_EXHAUSTED');

      assert.equal(finished, true);
    });

    it('refuses a response over the limit of the client', async () => {
      await using probe = await world(
        { ask: ({ n }) => ({ text: 'x'.repeat(n) }) },
        { client: { maxMessageBytes: 64 * 1024 } },
      );

      await failure(probe.client.ask({ n: 70 * 1024 }), 'RESOURCE_EXHAUSTED');

      assert.equal((await probe.client.ask({ n: 1 })).text, 'x');
    });

    it('refuses a request over the limit of the client', async () => {
      await using probe = await world({ ask: (request) => request }, { client: { maxMessageBytes: 64 * 1024 } });

      await failure(probe.client.ask({ text: 'x'.repeat(70 * 1024) }), 'RESOURCE_EXHAUSTED');
      await failure(probe.client.collect([{ text: 'x'.repeat(70 * 1024) }]), 'RESOURCE_EXHAUSTED');
    });
  });
});
