import assert from 'node:assert/strict';
import { CallError, type ClientInterceptor, type ServerInterceptor } from 'sallyport';
import { forEachLane } from '../../support/lanes.js';
import { all, failure } from './kit.js';
import { type ProbeHandlers, world } from './probe.js';

const echo: ProbeHandlers = {
  ask: (request) => request,
  async *list({ n }) {
    for (let i = 0; i < n; i++) yield { n: i };
  },
  async collect(requests) {
    return { n: (await all(requests)).length };
  },
  async *talk(requests) {
    yield* requests;
  },
};

/** Changes each response, whatever the kind of the method. */
function mapping(change: (response: { n: number }) => unknown): ServerInterceptor & ClientInterceptor {
  return (request: unknown, call: { kind: string }, next: (request: unknown) => unknown) => {
    const result = next(request);
    if (call.kind === 'unary' || call.kind === 'clientStream') return (result as Promise<never>).then(change);
    return (async function* () {
      for await (const response of result as AsyncIterable<never>) yield change(response);
    })();
  };
}

forEachLane(() => {
  describe('interceptors', () => {
    it('stand around a call in the order they are given, on both sides', async () => {
      const steps: string[] = [];
      const noting =
        (name: string): ServerInterceptor & ClientInterceptor =>
        async (request: unknown, _: unknown, next: (request: unknown) => unknown) => {
          steps.push(`> ${name}`);
          const response = await next(request);
          steps.push(`< ${name}`);
          return response;
        };
      await using probe = await world(
        {
          ask(request) {
            steps.push('handler');
            return request;
          },
        },
        {
          server: { interceptors: { server: [noting('server 1'), noting('server 2')] } },
          interceptors: [noting('client 1'), noting('client 2')],
        },
      );

      await probe.client.ask({});

      assert.deepEqual(steps, [
        '> client 1',
        '> client 2',
        '> server 1',
        '> server 2',
        'handler',
        '< server 2',
        '< server 1',
        '< client 2',
        '< client 1',
      ]);
    });

    it('of the client see the call and add metadata without touching the object of the caller', async () => {
      const seen: unknown[] = [];
      await using probe = await world(
        { ask: (_, call) => ({ text: call.metadata.getAll('x-trace').join() }) },
        {
          interceptors: [
            (request, call, next) => {
              seen.push([call.method, call.kind, call.service, Number.isFinite(call.deadlineAt), call.peer]);
              call.metadata.set('x-trace', 'added');
              return next(request);
            },
          ],
        },
      );
      const metadata = { 'x-trace': 'given' };

      const { text } = await probe.client.ask({}, { metadata });

      assert.equal(text, 'added');
      assert.deepEqual(metadata, { 'x-trace': 'given' });
      assert.deepEqual(seen, [['conformance.v1.Probe/ask', 'unary', 'probe', true, undefined]]);
    });

    it('of the client learn who answered', async () => {
      const peers: (string | undefined)[] = [];
      await using probe = await world(echo, {
        interceptors: [
          async (request, call, next) => {
            const response = await next(request);
            peers.push(call.peer?.id);
            return response;
          },
        ],
      });

      await probe.client.ask({});

      assert.deepEqual(peers, [probe.mesh.id('probe')]);
    });

    it('of the server see the call and who makes it', async () => {
      const seen: unknown[] = [];
      await using probe = await world(echo, {
        server: {
          interceptors: {
            server: [
              (request, call, next) => {
                seen.push([call.method, call.kind, call.peer.id]);
                return next(request);
              },
            ],
          },
        },
      });
      const web = probe.mesh.id('web');

      await probe.client.ask({});
      await all(probe.client.list({ n: 1 }));
      await probe.client.collect([]);
      await all(probe.client.talk([]));

      assert.deepEqual(seen, [
        ['conformance.v1.Probe/ask', 'unary', web],
        ['conformance.v1.Probe/list', 'serverStream', web],
        ['conformance.v1.Probe/collect', 'clientStream', web],
        ['conformance.v1.Probe/talk', 'bidi', web],
      ]);
    });

    for (const side of ['client', 'server'] as const) {
      const on = (interceptor: ServerInterceptor & ClientInterceptor) =>
        side === 'client' ? { interceptors: [interceptor] } : { server: { interceptors: { server: [interceptor] } } };

      it(`of the ${side} change responses of every kind`, async () => {
        await using probe = await world(echo, on(mapping(({ n }) => ({ n: n + 100, text: '' }))));

        assert.equal((await probe.client.ask({ n: 1 })).n, 101);
        assert.deepEqual(
          (await all(probe.client.list({ n: 2 }))).map(({ n }) => n),
          [100, 101],
        );
        assert.equal((await probe.client.collect([{}, {}])).n, 102);
        assert.deepEqual(
          (await all(probe.client.talk([{ n: 5 }]))).map(({ n }) => n),
          [105],
        );
      });

      it(`of the ${side} answer without going further`, async () => {
        let served = 0;
        await using probe = await world(
          { ask: () => ({ n: served++ }) },
          on(() => Promise.resolve({ n: 42, text: '' })),
        );

        assert.equal((await probe.client.ask({})).n, 42);
        assert.equal(served, 0);
      });

      it(`of the ${side} end a call with the status they choose`, async () => {
        let served = 0;
        await using probe = await world(
          { ask: () => ({ n: served++ }) },
          on(async () => {
            throw new CallError('RESOURCE_EXHAUSTED', 'slow down');
          }),
        );

        assert.equal((await failure(probe.client.ask({}), 'RESOURCE_EXHAUSTED')).message, 'slow down');
        assert.equal(served, 0);
      });

      it(`of the ${side} map errors`, async () => {
        await using probe = await world(
          {
            ask() {
              throw new CallError('NOT_FOUND', 'no row');
            },
          },
          on(((request: unknown, _: unknown, next: (request: unknown) => unknown) =>
            (next(request) as Promise<unknown>).catch((error: CallError) => {
              throw new CallError('FAILED_PRECONDITION', `mapped ${error.status}`);
            })) as ServerInterceptor & ClientInterceptor),
        );

        const error = await failure(probe.client.ask({}), 'FAILED_PRECONDITION');

        assert.equal(error.message, 'mapped NOT_FOUND');
      });
    }

    it('of the server see validated requests only, and answers are validated after them', async () => {
      await using probe = await world(echo, { server: { interceptors: { server: [() => ({ n: 'many' })] } } });

      assert.equal((await failure(probe.client.ask({}), 'INTERNAL')).message, 'response validation failed');
    });

    it('of the server stand behind authorization', async () => {
      let reached = 0;
      await using probe = await world(echo, {
        server: {
          authorize: [],
          interceptors: {
            server: [
              (request, _, next) => {
                reached++;
                return next(request);
              },
            ],
          },
        },
      });

      await failure(probe.client.ask({}), 'PERMISSION_DENIED');

      assert.equal(reached, 0);
    });
  });
});
