import assert from 'node:assert/strict';
import { UsageError } from 'sallyport';
import { forEachLane } from '../../support/lanes.js';
import { aborted, all, failure, pause, signal } from './kit.js';
import { Probe, world } from './probe.js';

/** Far above what anything here takes, far below what would be waited without a deadline (10 s). */
const SOON_MS = 5000;

forEachLane(() => {
  describe('deadlines', () => {
    it('end each kind of call, for the client at once and for the handler too', async () => {
      let stopped = 0;
      const handler = async (signal: AbortSignal) => {
        await aborted(signal);
        stopped++;
      };
      await using probe = await world({
        async ask(request, call) {
          await handler(call.signal);
          return request;
        },
        async *list(request, call) {
          yield request;
          await handler(call.signal);
        },
        async collect(_, call) {
          await handler(call.signal);
          return {};
        },
        async *talk(requests, call) {
          for await (const request of requests) yield request;
          await handler(call.signal);
        },
      });
      const options = { deadlineMs: 500 };
      const before = Date.now();

      await Promise.all([
        failure(probe.client.ask({}, options), 'DEADLINE_EXCEEDED'),
        failure(all(probe.client.list({}, options)), 'DEADLINE_EXCEEDED'),
        failure(probe.client.collect([], options), 'DEADLINE_EXCEEDED'),
        failure(all(probe.client.talk([{}], options)), 'DEADLINE_EXCEEDED'),
      ]);

      assert.ok(Date.now() - before < SOON_MS);
      while (stopped < 4) await pause(1);
    });

    it('tell the handler how long it has', async () => {
      await using probe = await world({ ask: (_, call) => ({ n: Math.round(call.deadlineAt - Date.now()) }) });

      const { n } = await probe.client.ask({}, { deadlineMs: 60_000 });

      assert.ok(n > 50_000 && n <= 60_050, `${n} ms were left`);
    });

    it('are finite for calls that name none', async () => {
      await using probe = await world(
        { ask: (_, call) => ({ n: Math.round(call.deadlineAt - Date.now()) }) },
        { client: { defaultDeadlineMs: 30_000 } },
      );

      const { n } = await probe.client.ask({});

      assert.ok(n > 20_000 && n <= 30_050, `${n} ms were left`);
    });

    it('may be set for all calls of a client', async () => {
      await using probe = await world(
        { ask: (_, call) => ({ n: Math.round(call.deadlineAt - Date.now()) }) },
        { open: { deadlineMs: 40_000 } },
      );

      const { n } = await probe.client.ask({});

      assert.ok(n > 30_000 && n <= 40_050, `${n} ms were left`);
    });

    it('pass on what is left to nested calls', async () => {
      await using probe = await world({
        async ask({ n }, call) {
          if (n === 0) return { n: Math.round(call.deadlineAt - Date.now()) };
          await pause(50);
          return nested.ask({ n: 0 }, { deadlineMs: 600_000 });
        },
      });
      const nested = probe.probe.client(Probe, { service: 'probe' });

      const { n } = await probe.client.ask({ n: 1 }, { deadlineMs: 20_000 });

      assert.ok(n > 10_000 && n <= 19_960, `${n} ms were left`);
    });

    it('do not lengthen when the nested call names a shorter one', async () => {
      await using probe = await world({
        async ask({ n }, call) {
          if (n === 0) return { n: Math.round(call.deadlineAt - Date.now()) };
          return nested.ask({ n: 0 }, { deadlineMs: 5000 });
        },
      });
      const nested = probe.probe.client(Probe, { service: 'probe' });

      const { n } = await probe.client.ask({ n: 1 }, { deadlineMs: 20_000 });

      assert.ok(n <= 5050, `${n} ms were left`);
    });

    it('keep a call with no time left from being sent', async () => {
      let served = 0;
      await using probe = await world({ ask: () => ({ n: served++ }) });

      const error = await failure(probe.client.ask({}, { deadlineMs: 0 }), 'DEADLINE_EXCEEDED');
      await failure(all(probe.client.list({}, { deadlineMs: -5 })), 'DEADLINE_EXCEEDED');

      assert.match(error.message, /no time was left to call conformance\.v1\.Probe\/ask/);
      assert.equal(served, 0);
    });

    it('keep a nested call from being sent when the outer one has no time left', async () => {
      let served = 0;
      const outcome = signal<unknown>();
      await using probe = await world({
        ask: () => ({ n: served++ }),
        async collect(_, call) {
          await aborted(call.signal);
          nested.ask({}).then(outcome.give, outcome.give);
          return {};
        },
      });
      const nested = probe.probe.client(Probe, { service: 'probe' });

      await failure(probe.client.collect([], { deadlineMs: 500 }), 'DEADLINE_EXCEEDED');

      assert.match(String(await outcome), /CallError/);
      assert.equal(served, 0);
    });

    it('must be numbers, and are never without end', async () => {
      await using probe = await world({ ask: (_, call) => ({ n: Math.round(call.deadlineAt - Date.now()) }) });

      for (const deadlineMs of [Number.NaN, Number.POSITIVE_INFINITY, '100' as never]) {
        await assert.rejects(probe.client.ask({}, { deadlineMs }), UsageError);
        await assert.rejects(all(probe.client.list({}, { deadlineMs })), UsageError);
      }
    });

    it('may be longer than a timer can wait', async () => {
      await using probe = await world({ ask: (request) => request });

      assert.equal((await probe.client.ask({ n: 1 }, { deadlineMs: 2 ** 31 })).n, 1);
    });
  });
});
