import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { createServer } from 'node:net';
import type { Selector } from 'sallyport';
import { eventually } from '../../support/eventually.js';
import { forEachLane } from '../../support/lanes.js';
import { aborted, all, failure, pause, type Signal, signal } from './kit.js';
import { Probe, type ProbeHandlers, world } from './probe.js';

/** Handlers that say when they run, when they were cancelled and when they let go of what they held. */
function waiting(started: Signal, cancelled: Signal, released: Signal = signal()): ProbeHandlers {
  async function untilCancelled(abort: AbortSignal): Promise<void> {
    started.give();
    await aborted(abort);
    cancelled.give();
  }
  return {
    async ask(request, call) {
      await untilCancelled(call.signal);
      return request;
    },
    async *list(request, call) {
      try {
        yield request;
        await untilCancelled(call.signal);
        yield request;
      } finally {
        released.give();
      }
    },
    async collect(_, call) {
      await untilCancelled(call.signal);
      return {};
    },
    async *talk(_, call) {
      try {
        await untilCancelled(call.signal);
        yield {};
      } finally {
        released.give();
      }
    },
  };
}

forEachLane(() => {
  describe('cancellation', () => {
    it('holds on to nothing of a call that is over, though its reader never came back', async () => {
      let pending = Number.NaN;
      const counting: Selector = {
        name: 'counting',
        pick: (candidates) => {
          pending = candidates[0]?.pending ?? Number.NaN;
          return candidates[0];
        },
      };
      await using probe = await world(
        {
          async *list() {
            yield { n: 1 };
            await pause(60_000);
          },
          ask: (request) => request,
        },
        { open: { selector: counting } },
      );
      const abort = new AbortController();
      for (let i = 0; i < 10; i++) {
        const answers = probe.client.list({}, { signal: abort.signal, deadlineMs: 300 });
        await answers[Symbol.asyncIterator]().next();
      }

      await eventually(async () => {
        await probe.client.ask({});
        assert.equal(pending, 0);
      }, 5000);
      assert.deepEqual(getEventListeners(abort.signal, 'abort'), []);
    });

    for (const kind of ['ask', 'list', 'collect', 'talk'] as const) {
      it(`by an abort signal reaches the handler of ${kind}`, async () => {
        const [started, cancelled] = [signal(), signal()];
        await using probe = await world(waiting(started, cancelled));
        const abort = new AbortController();
        const options = { signal: abort.signal };
        const call = {
          ask: () => probe.client.ask({}, options),
          list: () => all(probe.client.list({}, options)),
          collect: () => probe.client.collect([], options),
          talk: () => all(probe.client.talk([], options)),
        }[kind]();
        const outcome = failure(call, 'CANCELLED');
        await started;

        abort.abort();

        await outcome;
        await cancelled;
      });
    }

    it('by leaving the loop ends the generator of the handler', async () => {
      const released = signal();
      await using probe = await world({
        async *list() {
          try {
            for (let n = 0; ; n++) yield { n };
          } finally {
            released.give();
          }
        },
      });

      for await (const { n } of probe.client.list({})) if (n === 3) break;

      await released;
    });

    it('by leaving the loop ends a generator that waits for its signal', async () => {
      const [started, cancelled, released] = [signal(), signal(), signal()];
      await using probe = await world(waiting(started, cancelled, released));

      for await (const _ of probe.client.list({})) break;

      await cancelled;
      await released;
    });

    it('by leaving the loop stops the requests of the caller', async () => {
      const stopped = signal();
      await using probe = await world({
        async *talk(requests) {
          for await (const request of requests) yield request;
        },
      });
      async function* requests() {
        try {
          for (let n = 0; ; n++) yield { n };
        } finally {
          stopped.give();
        }
      }

      for await (const { n } of probe.client.talk(requests())) if (n === 3) break;

      await stopped;
    });

    it('never makes half an upload look like a whole one', async () => {
      let started = 0;
      const endings: unknown[] = [];
      await using probe = await world({
        async collect(requests) {
          for await (const _ of requests) started++;
          endings.push('whole');
          return {};
        },
        // biome-ignore lint/correctness/useYield: only reads
        async *talk(requests) {
          for await (const _ of requests) started++;
          endings.push('whole');
        },
      });
      async function* half() {
        yield {};
        await new Promise(() => {});
      }
      const aborts = Array.from({ length: 20 }, () => new AbortController());
      const outcomes = aborts.map(({ signal }, i) =>
        failure(
          i % 2 ? probe.client.collect(half(), { signal }) : all(probe.client.talk(half(), { signal })),
          'CANCELLED',
        ),
      );
      await eventually(() => assert.equal(started, 20));

      for (const abort of aborts) abort.abort();

      await Promise.all(outcomes);
      await probe.probe.stop();
      assert.deepEqual(endings, []);
    });

    it('reaches a handler that reads requests as an error', async () => {
      const [started, ended] = [signal(), signal<unknown>()];
      await using probe = await world({
        async collect(requests, call) {
          try {
            for await (const _ of requests) started.give();
            return {};
          } catch (error) {
            ended.give([error, call.signal.aborted]);
            throw error;
          }
        },
      });
      async function* half() {
        yield {};
        await new Promise(() => {});
      }
      const abort = new AbortController();
      const outcome = failure(probe.client.collect(half(), { signal: abort.signal }), 'CANCELLED');
      await started;

      abort.abort();

      await outcome;
      const [error, aborted] = (await ended) as [Error, boolean];
      await failure(Promise.reject(error), 'CANCELLED');
      assert.equal(aborted, true);
    });

    it('reaches nested calls', async () => {
      const [started, cancelled] = [signal(), signal()];
      await using probe = await world({
        ...waiting(started, cancelled),
        async collect() {
          return nested.ask({});
        },
      });
      const nested = probe.probe.client(Probe, { service: 'probe' });
      const abort = new AbortController();
      const outcome = failure(probe.client.collect([], { signal: abort.signal }), 'CANCELLED');
      await started;

      abort.abort();

      await outcome;
      await cancelled;
    });

    it('reaches nested calls of a generator, also after its first message', async () => {
      const [started, cancelled] = [signal(), signal()];
      await using probe = await world({
        ...waiting(started, cancelled),
        async *list() {
          yield { n: 1 };
          yield { n: 2 };
          await nested.ask({});
        },
      });
      const nested = probe.probe.client(Probe, { service: 'probe' });
      const abort = new AbortController();
      const outcome = failure(all(probe.client.list({}, { signal: abort.signal })), 'CANCELLED');
      await started;

      abort.abort();

      await outcome;
      await cancelled;
    });

    it('before the call keeps it from being sent', async () => {
      let served = 0;
      await using probe = await world({ ask: () => ({ n: served++ }) });
      const options = { signal: AbortSignal.abort() };

      await failure(probe.client.ask({}, options), 'CANCELLED');
      await failure(all(probe.client.list({}, options)), 'CANCELLED');
      await failure(probe.client.collect([], options), 'CANCELLED');
      await failure(all(probe.client.talk([], options)), 'CANCELLED');

      assert.equal(served, 0);
    });

    it('while connecting ends the call at once', async () => {
      const accepted = signal();
      const mute = createServer(() => accepted.give()).listen(0, '127.0.0.1');
      await new Promise((resolve) => mute.once('listening', resolve));
      const { port } = mute.address() as { port: number };
      await using probe = await world({}, { server: { server: { advertise: `127.0.0.1:${port}` } } });
      const abort = new AbortController();
      const before = Date.now();
      const outcome = failure(probe.client.ask({}, { signal: abort.signal }), 'CANCELLED');
      await accepted;

      abort.abort();

      await outcome;
      assert.ok(Date.now() - before < 4000, 'it waited for the connection attempt');
      mute.close();
      await probe.mesh.stop();
    });

    it('after the answer does nothing', async () => {
      let cancelled = false;
      await using probe = await world({
        ask(request, call) {
          call.signal.addEventListener('abort', () => {
            cancelled = true;
          });
          return request;
        },
      });
      const abort = new AbortController();

      await probe.client.ask({}, { signal: abort.signal });
      abort.abort();
      await probe.client.ask({});

      assert.equal(cancelled, false);
    });

    it('leaves no listener on the signal of the caller', async () => {
      await using probe = await world({
        ask: (request) => request,
        async *list() {
          yield {};
        },
      });
      const abort = new AbortController();
      let listening = 0;
      const { addEventListener, removeEventListener } = abort.signal;
      abort.signal.addEventListener = (...given: Parameters<typeof addEventListener>) => {
        listening++;
        addEventListener.apply(abort.signal, given);
      };
      abort.signal.removeEventListener = (...given: Parameters<typeof removeEventListener>) => {
        listening--;
        removeEventListener.apply(abort.signal, given);
      };

      for (let n = 0; n < 5; n++) {
        await probe.client.ask({}, { signal: abort.signal });
        await all(probe.client.list({}, { signal: abort.signal }));
      }

      assert.equal(listening, 0);
    });

    it('makes what a handler does afterwards nobody’s business', async () => {
      const [started, cancelled] = [signal(), signal()];
      const events: string[] = [];
      await using probe = await world({
        async ask(_, call) {
          started.give();
          await aborted(call.signal);
          cancelled.give();
          throw new Error('too late');
        },
        async *list(_, call) {
          yield {};
          await aborted(call.signal);
          throw new Error('too late');
        },
      });
      probe.probe.on('handler-failed', ({ detail }) => events.push(detail));
      const abort = new AbortController();
      const outcome = failure(probe.client.ask({}, { signal: abort.signal }), 'CANCELLED');
      await started;

      abort.abort();
      await outcome;
      await cancelled;
      for await (const _ of probe.client.list({})) break;
      await pause(10);

      assert.deepEqual(events, []);
      await failure(probe.client.collect([]), 'UNIMPLEMENTED');
    });

    it('copes with iterators whose return() is not a promise', async () => {
      const released = signal();
      await using probe = await world({
        list: () => ({
          [Symbol.asyncIterator]: () => ({
            next: async () => ({ done: false, value: {} }),
            return: (() => released.give()) as never,
          }),
        }),
      });

      for await (const _ of probe.client.list({})) break;

      await released;
      await failure(probe.client.ask({}), 'UNIMPLEMENTED');
    });

    it('of the connection is cancellation for the handlers on it', async () => {
      const [started, cancelled] = [signal(), signal()];
      await using probe = await world(waiting(started, cancelled));
      const outcome = failure(probe.client.ask({}), 'UNAVAILABLE');
      await started;

      await probe.web.stop();

      await outcome;
      await cancelled;
    });
  });
});
