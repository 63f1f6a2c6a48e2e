import assert from 'node:assert/strict';
import { CallError, errorInfo, Metadata, Status, type StatusName, statusName } from 'sallyport';
import { forEachLane } from '../../support/lanes.js';
import { all, failure } from './kit.js';
import { Probe, type ProbeHandlers, world } from './probe.js';

const failures = (Object.keys(Status) as StatusName[]).filter((name) => name !== 'OK');

const texts: readonly (readonly [string, string])[] = [
  ['nothing', ''],
  ['unicode', 'Größe überschritten — 大きすぎる 🏰'],
  ['line breaks and percent signs', 'a\r\nb%20c%'],
  ['4,000 characters', 'x'.repeat(4000)],
];

/** A service whose every method fails with what `make` returns. */
function failing(make: (n: number) => unknown): ProbeHandlers {
  return {
    ask({ n }) {
      throw make(n);
    },
    // biome-ignore lint/correctness/useYield: it fails before the first message
    async *list({ n }) {
      throw make(n);
    },
    async collect(requests) {
      const [first] = await all(requests);
      throw make(first?.n ?? 0);
    },
    async *talk(requests) {
      for await (const request of requests) {
        yield request;
        throw make(request.n);
      }
    },
  };
}

forEachLane(() => {
  describe('status', () => {
    it('carries each of the 16 codes that mean failure, from each kind of method', async () => {
      await using probe = await world(failing((n) => new CallError(statusName(n), `code ${n}`)));

      for (const name of failures) {
        const n = Status[name];
        for (const call of [
          () => probe.client.ask({ n }),
          () => all(probe.client.list({ n })),
          () => probe.client.collect([{ n }]),
          () => all(probe.client.talk([{ n }])),
        ]) {
          const error = await failure(call(), name);
          assert.equal(error.message, `code ${n}`);
          assert.equal(error.code, n);
        }
      }
    });

    for (const [what, text] of texts) {
      it(`carries a message of ${what}`, async () => {
        await using probe = await world(failing(() => new CallError('ABORTED', text)));

        assert.equal((await failure(probe.client.ask({}), 'ABORTED')).message, text);
        assert.equal((await failure(all(probe.client.list({})), 'ABORTED')).message, text);
      });
    }

    it('carries a message with a lone surrogate as well as can be', async () => {
      await using probe = await world(failing(() => new CallError('ABORTED', 'half \ud83c of it')));

      assert.equal((await failure(probe.client.ask({}), 'ABORTED')).message, 'half \ufffd of it');
      assert.equal((await failure(all(probe.client.talk([{}])), 'ABORTED')).message, 'half \ufffd of it');
    });

    it('survives a message that no header can hold', async () => {
      await using probe = await world(failing((n) => new CallError('ABORTED', 'x'.repeat(n))));

      const error = await failure(probe.client.ask({ n: 1024 * 1024 }), 'ABORTED');
      assert.ok(error.message.length > 1000);

      assert.equal((await failure(probe.client.ask({ n: 3 }), 'ABORTED')).message, 'xxx');
    });

    it('carries details', async () => {
      const details = [
        errorInfo({ reason: 'OUT_OF_STOCK', domain: 'shop.acme', metadata: { item: '7' } }),
        { typeUrl: 'type.googleapis.com/acme.Blob', value: new Uint8Array([0, 255, 128]) },
      ];
      await using probe = await world(failing(() => new CallError('FAILED_PRECONDITION', 'sold out', { details })));

      for (const call of [
        () => probe.client.ask({}),
        () => all(probe.client.list({})),
        () => probe.client.collect([]),
      ]) {
        const received = (await failure(call(), 'FAILED_PRECONDITION')).details;
        assert.deepEqual(
          received.map(({ typeUrl, value }) => [typeUrl, [...value]]),
          details.map(({ typeUrl, value }) => [typeUrl, [...value]]),
        );
      }
    });

    it('passes on the code and message of an inner call, not its metadata and details', async () => {
      const details = [errorInfo({ reason: 'INNER', domain: 'inner.test' })];
      const metadata = Metadata.from({ 'x-inner': 'for this service only' });
      let inner: CallError | undefined;
      await using probe = await world({
        ask: () => {
          throw new CallError('NOT_FOUND', 'no such thing', { details, metadata });
        },
        async collect() {
          const client = probe.probe.client(Probe, { service: 'probe' });
          inner = await failure(client.ask({}), 'NOT_FOUND');
          throw inner;
        },
      });

      const outer = await failure(probe.client.collect([]), 'NOT_FOUND');

      assert.equal(inner?.received, true);
      assert.equal(inner.metadata?.get('x-inner'), 'for this service only');
      assert.equal(outer.message, 'no such thing');
      assert.deepEqual(outer.details, []);
      assert.equal(outer.metadata?.get('x-inner'), undefined);
    });

    it('tells the caller nothing of a foreign error, and the log what it was', async () => {
      await using probe = await world(failing(() => new Error('connect postgres://db failed')));
      const logged: string[] = [];
      probe.probe.on('handler-failed', ({ detail }) => logged.push(detail));

      for (const call of [
        () => probe.client.ask({}),
        () => all(probe.client.list({})),
        () => probe.client.collect([]),
        () => all(probe.client.talk([{}])),
      ]) {
        assert.equal((await failure(call(), 'INTERNAL')).message, 'internal error');
      }

      assert.equal(logged.length, 4);
      for (const detail of logged) {
        assert.equal(detail, 'Error: connect postgres://db failed');
      }
    });

    for (const [what, thrown] of [
      ['a string', 'secret'],
      ['undefined', undefined],
      ['an object with a code', { code: 5, message: 'secret' }],
    ] as const) {
      it(`takes ${what} that a handler throws for an internal error`, async () => {
        await using probe = await world(failing(() => thrown));

        assert.equal((await failure(probe.client.ask({}), 'INTERNAL')).message, 'internal error');
        assert.equal((await failure(all(probe.client.list({})), 'INTERNAL')).message, 'internal error');
      });
    }

    it('takes a handler that rejects like one that throws', async () => {
      await using probe = await world({
        async ask() {
          await Promise.resolve();
          throw new CallError('NOT_FOUND', 'gone');
        },
      });

      await failure(probe.client.ask({}), 'NOT_FOUND');
    });

    it('does not let a handler fail with status OK', async () => {
      await using probe = await world(failing(() => new CallError('OK', 'fine')));

      for (const call of [
        () => probe.client.ask({}),
        () => all(probe.client.list({})),
        () => probe.client.collect([]),
        () => all(probe.client.talk([{}])),
      ]) {
        await failure(call(), 'INTERNAL');
      }
    });

    it('takes a stream handler that returns no stream for an internal error', async () => {
      await using probe = await world({ list: (() => undefined) as never });

      await failure(all(probe.client.list({})), 'INTERNAL');
    });
  });
});
