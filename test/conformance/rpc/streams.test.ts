import assert from 'node:assert/strict';
import type { CallOptions } from 'sallyport';
import { UsageError } from 'sallyport';
import { forEachLane } from '../../support/lanes.js';
import { all, pause } from './kit.js';
import { world } from './probe.js';

const BLOCK = 'x'.repeat(16 * 1024);

forEachLane(() => {
  describe('calls of each kind', () => {
    it('carries one request and one response', async () => {
      await using probe = await world({ ask: ({ n, text }) => ({ n: n + 1, text: `${text}!` }) });

      assert.deepEqual(await probe.client.ask({ n: 1, text: 'hi' }), { n: 2, text: 'hi!' });
    });

    it('shows the handler who calls, and how', async () => {
      await using probe = await world({ ask: (_, call) => ({ text: `${call.peer.id} ${call.method}` }) });

      const { text } = await probe.client.ask({});

      assert.equal(text, `${probe.mesh.id('web')} conformance.v1.Probe/ask`);
    });

    it('streams responses in order', async () => {
      await using probe = await world({
        async *list({ n }) {
          for (let i = 0; i < n; i++) yield { n: i };
        },
      });

      const items = await all(probe.client.list({ n: 1000 }));

      assert.deepEqual(
        items.map(({ n }) => n),
        Array.from({ length: 1000 }, (_, i) => i),
      );
    });

    it('streams requests in order', async () => {
      const seen: number[] = [];
      await using probe = await world({
        async collect(requests) {
          for await (const { n } of requests) seen.push(n);
          return { n: seen.length };
        },
      });

      const { n } = await probe.client.collect(Array.from({ length: 1000 }, (_, i) => ({ n: i })));

      assert.equal(n, 1000);
      assert.deepEqual(
        seen,
        Array.from({ length: 1000 }, (_, i) => i),
      );
    });

    for (const requests of [undefined, { n: 1 }]) {
      it(`refuses ${requests ? 'one message' : 'nothing'} where a stream of them is asked for`, async () => {
        await using probe = await world({});

        await assert.rejects(probe.client.collect(requests as never), UsageError);
        await assert.rejects(all(probe.client.talk(requests as never)), UsageError);
      });
    }

    it('streams both ways, each answer before the next question', async () => {
      await using probe = await world({
        async *talk(requests) {
          for await (const { n } of requests) yield { n: n * 2 };
        },
      });
      const answers: number[] = [];
      async function* questions() {
        for (let n = 0; n < 100; n++) {
          // Asked only when the one before has been answered: a transport that waits for more to send would stop here.
          while (answers.length < n) await pause(0);
          yield { n };
        }
      }

      for await (const { n } of probe.client.talk(questions())) answers.push(n);

      assert.deepEqual(
        answers,
        Array.from({ length: 100 }, (_, i) => i * 2),
      );
    });

    it('streams 1,000 messages both ways at once', async () => {
      await using probe = await world({
        async *talk(requests) {
          for await (const request of requests) yield request;
        },
      });

      const echoed = await all(probe.client.talk(Array.from({ length: 1000 }, (_, i) => ({ n: i }))));

      assert.deepEqual(
        echoed.map(({ n }) => n),
        Array.from({ length: 1000 }, (_, i) => i),
      );
    });

    it('carries streams without any message', async () => {
      await using probe = await world({
        async *list() {},
        async collect(requests) {
          return { n: (await all(requests)).length };
        },
        // biome-ignore lint/correctness/useYield: an empty stream
        async *talk(requests) {
          await all(requests);
        },
      });

      assert.deepEqual(await all(probe.client.list({})), []);
      assert.equal((await probe.client.collect([])).n, 0);
      assert.deepEqual(await all(probe.client.talk([])), []);
    });

    it('lets a handler answer before it has read all requests', async () => {
      await using probe = await world({
        async collect(requests) {
          for await (const { n } of requests) return { n };
          return {};
        },
      });
      let stopped = false;
      async function* endless() {
        try {
          for (let n = 7; ; n++) yield { n, text: BLOCK };
        } finally {
          stopped = true;
        }
      }

      const { n } = await probe.client.collect(endless());

      assert.equal(n, 7);
      assert.equal(stopped, true);
    });

    it('lets a bidi handler finish while the client still sends', async () => {
      await using probe = await world({
        async *talk(requests) {
          for await (const request of requests) {
            yield request;
            return;
          }
        },
      });
      async function* endless() {
        for (let n = 0; ; n++) yield { n };
      }

      assert.deepEqual(await all(probe.client.talk(endless())), [{ n: 0, text: '' }]);
    });

    it('asks for no more to say once the call has ended, even while nobody reads the answers', async () => {
      await using probe = await world({
        async *talk(requests) {
          for await (const _ of requests) {
            yield { n: 1 };
            return;
          }
        },
      });
      let produced = 0;
      function* endless() {
        for (;;) yield { n: ++produced };
      }
      const answers = probe.client.talk(endless())[Symbol.asyncIterator]();
      assert.deepEqual(await answers.next(), { done: false, value: { n: 1, text: '' } });

      await pause(50);
      const before = produced;
      await pause(50);

      assert.equal(produced, before);
      assert.deepEqual(await answers.next(), { done: true, value: undefined });
    });

    it('gives every answer, and a good end, to a slow reader that still has something to say', async () => {
      await using probe = await world({
        async *talk() {
          for (let n = 0; n < 5; n++) yield { n };
        },
      });
      async function* talkative() {
        for (let n = 0; ; n++) {
          yield { n };
          await pause(5);
        }
      }

      const answers: number[] = [];
      for await (const { n } of probe.client.talk(talkative())) {
        answers.push(n);
        await pause(60);
      }

      assert.deepEqual(answers, [0, 1, 2, 3, 4]);
    });

    it('holds a producing handler back while the client reads slowly', async () => {
      let produced = 0;
      await using probe = await world({
        async *list() {
          for (;;) {
            produced++;
            yield { text: BLOCK };
          }
        },
      });

      let consumed = 0;
      let lead = 0;
      for await (const _ of probe.client.list({})) {
        if (++consumed === 40) break;
        await pause(2);
        lead = Math.max(lead, produced - consumed);
      }

      // 2 MiB: windows, stream buffers and TLS records hold some messages each; the handler could have made thousands.
      assert.ok(lead < 128, `the handler ran ${lead} messages of 16 KiB ahead`);
    });

    it('holds a handler back that produces small messages while nobody reads', async () => {
      let produced = 0;
      await using probe = await world({
        async *list() {
          for (;;) {
            produced++;
            yield {};
          }
        },
      });
      const answers = probe.client.list({})[Symbol.asyncIterator]();
      await answers.next();

      let before = -1;
      for (let waits = 0; waits < 20 && produced > before; waits++) {
        before = produced;
        await pause(300);
      }

      assert.equal(produced, before);
      await answers.return?.();
    });

    it('holds a producing client back while the handler reads slowly', async () => {
      let consumed = 0;
      await using probe = await world({
        async collect(requests) {
          for await (const _ of requests) {
            if (++consumed === 40) break;
            await pause(2);
          }
          return { n: consumed };
        },
      });
      let produced = 0;
      let lead = 0;
      async function* endless() {
        for (;;) {
          produced++;
          lead = Math.max(lead, produced - consumed);
          yield { text: BLOCK };
        }
      }

      await probe.client.collect(endless());

      assert.ok(lead < 128, `the client ran ${lead} messages of 16 KiB ahead`);
    });

    it('serves 500 calls at once', async () => {
      let running = 0;
      let most = 0;
      await using probe = await world(
        {
          async ask(request) {
            most = Math.max(most, ++running);
            await pause(20);
            running--;
            return request;
          },
        },
        { server: { server: { limits: { maxConcurrentCalls: 1000 } } } },
      );

      const answers = await Promise.all(Array.from({ length: 500 }, (_, n) => probe.client.ask({ n })));

      assert.deepEqual(
        answers.map(({ n }) => n),
        Array.from({ length: 500 }, (_, i) => i),
      );
      assert.ok(most > 100, `only ${most} calls ran at once`);
    });

    it('refuses an option that a call does not have, and sends nothing', async () => {
      let served = 0;
      await using probe = await world({ ask: () => ({ n: served++ }) });
      const options = { deadline: 5 } as unknown as CallOptions;

      for (const call of [
        probe.client.ask({}, options),
        all(probe.client.list({}, options)),
        probe.client.collect([], options),
        all(probe.client.talk([], options)),
      ]) {
        await assert.rejects(call, { name: 'UsageError', message: /a call has no option deadline$/ });
      }

      assert.equal(served, 0);
    });

    it('queues the calls beyond what a connection may carry at once', async () => {
      let running = 0;
      let most = 0;
      await using probe = await world(
        {
          async ask(request) {
            most = Math.max(most, ++running);
            await pause(1);
            running--;
            return request;
          },
        },
        { server: { server: { limits: { maxConcurrentCalls: 10 } } } },
      );

      const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => probe.client.ask({ n })));

      assert.equal(answers.length, 200);
      assert.ok(most <= 10, `${most} calls ran at once`);
    });
  });
});
