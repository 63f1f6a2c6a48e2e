import assert from 'node:assert/strict';
import { forEachLane } from '../../support/lanes.js';
import { failure, signal } from './kit.js';
import { type World, world } from './probe.js';

/** Why connections were closed, on both sides. */
function closings({ probe, web }: World): string[] {
  const closed: string[] = [];
  for (const service of [probe, web]) {
    service.on('connection-closed-by-policy', ({ reason }) => closed.push(reason));
  }
  return closed;
}

forEachLane(() => {
  describe('many calls that end before everything was said', () => {
    it('goes on when servers end conversations first', async () => {
      await using probe = await world({
        async *talk(requests) {
          for await (const request of requests) {
            yield request;
            return;
          }
        },
      });
      const closed = closings(probe);

      for (let i = 0; i < 1500; i++) {
        const told = signal();
        async function* requests() {
          yield { n: i };
          await told;
        }
        for await (const { n } of probe.client.talk(requests())) assert.equal(n, i);
        told.give();
      }

      assert.deepEqual(closed, []);
    });

    it('goes on when servers take one message of a hundred', async () => {
      await using probe = await world({
        async collect(requests) {
          for await (const { n } of requests) return { n };
          return {};
        },
      });
      const closed = closings(probe);
      const text = 'x'.repeat(8000);

      for (let i = 0; i < 150; i++) {
        const requests = Array.from({ length: 100 }, () => ({ n: i, text }));
        assert.equal((await probe.client.collect(requests)).n, i);
      }

      assert.deepEqual(closed, []);
    });

    it('goes on when callers leave streams', async () => {
      const text = 'x'.repeat(8000);
      await using probe = await world({
        async *list() {
          for (;;) yield { text };
        },
      });
      const closed = closings(probe);

      for (let i = 0; i < 150; i++) {
        for await (const _ of probe.client.list({})) break;
      }

      assert.deepEqual(closed, []);
    });

    it('goes on when answers are read to their end', async () => {
      const text = 'x'.repeat(200_000);
      await using probe = await world({
        async *list() {
          yield { text };
        },
      });
      const closed = closings(probe);

      for (let i = 0; i < 800; i++) {
        for await (const answer of probe.client.list({})) assert.equal(answer.text.length, text.length);
      }

      assert.deepEqual(closed, []);
    });

    it('goes on when calls are denied', async () => {
      await using probe = await world({}, { server: { authorize: [] } });
      const closed = closings(probe);

      for (let i = 0; i < 1500; i++) await failure(probe.client.ask({}), 'PERMISSION_DENIED');

      assert.deepEqual(closed, []);
    });
  });
}, ['fast']);
