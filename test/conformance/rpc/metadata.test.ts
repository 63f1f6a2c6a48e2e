import assert from 'node:assert/strict';
import { Metadata, type MetadataInit } from 'sallyport';
import { forEachLane } from '../../support/lanes.js';
import { all, failure, signal } from './kit.js';
import { world } from './probe.js';

const sent: MetadataInit = {
  'x-one': 'one value, with: punctuation ~!',
  'x-many': ['first', 'second', 'third'],
  'x-bytes-bin': [new Uint8Array([0, 1, 127, 128, 255]), new Uint8Array([7])],
  'x-empty': '',
};

/**
 * Entries as comparable data; what the transport itself adds (`user-agent`, `date` ...) is left out. Text values of one key
 * may arrive joined: PROTOCOL-HTTP2.md calls that the same.
 */
function entries(metadata: Metadata): [string, string | number[][]][] {
  const keys = [...new Set([...metadata].map(([key]) => key))].filter((key) => key.startsWith('x-')).sort();
  return keys.map((key) => {
    const values = metadata.getAll(key);
    return [
      key,
      key.endsWith('-bin') ? values.map((bytes) => [...Buffer.from(bytes as Uint8Array)]) : values.join(', '),
    ];
  });
}

const expected = entries(Metadata.from(sent));

forEachLane(() => {
  describe('metadata', () => {
    it('reaches the handler: text, several values of a key, bytes', async () => {
      const received = signal<Metadata>();
      await using probe = await world({
        ask(request, call) {
          received.give(call.metadata);
          return request;
        },
      });

      await probe.client.ask({}, { metadata: sent });

      assert.deepEqual(entries(await received), expected);
    });

    it('reaches the handler of a stream', async () => {
      const received = signal<Metadata>();
      await using probe = await world({
        // biome-ignore lint/correctness/useYield: an empty stream
        async *talk(_, call) {
          received.give(call.metadata);
        },
      });

      await all(probe.client.talk([], { metadata: sent }));

      assert.deepEqual(entries(await received), expected);
    });

    it('shows the handler nothing of the protocol', async () => {
      const received = signal<Metadata>();
      await using probe = await world({
        ask(request, call) {
          received.give(call.metadata);
          return request;
        },
      });

      await probe.client.ask({});

      const keys = [...(await received)].map(([key]) => key);
      assert.deepEqual(
        keys.filter((key) => key !== 'user-agent'),
        [],
      );
    });

    it('comes back as headers and trailers of a unary call', async () => {
      await using probe = await world({
        ask(request, call) {
          call.sendHeaders(sent);
          call.setTrailers({ 'x-trailer': 'replaced' });
          call.setTrailers({ 'x-trailer': ['a', 'b'], 'x-trailer-bin': new Uint8Array([255]) });
          return request;
        },
      });
      let headers = new Metadata();
      let trailers = new Metadata();

      await probe.client.ask({}, { onHeaders: (m) => (headers = m), onTrailers: (m) => (trailers = m) });

      assert.deepEqual(entries(headers), expected);
      assert.deepEqual(entries(trailers), [
        ['x-trailer', 'a, b'],
        ['x-trailer-bin', [[255]]],
      ]);
    });

    it('sends the headers of a stream before its first message', async () => {
      const go = signal();
      await using probe = await world({
        async *list(_, call) {
          call.sendHeaders(sent);
          await go;
          yield { n: 1 };
          call.setTrailers({ 'x-trailer': 'end' });
        },
      });
      let headers: Metadata | undefined;
      let trailers: Metadata | undefined;

      const items = await all(
        probe.client.list(
          {},
          {
            onHeaders: (m) => {
              headers = m;
              go.give();
            },
            onTrailers: (m) => (trailers = m),
          },
        ),
      );

      assert.equal(items.length, 1);
      assert.deepEqual(headers && entries(headers), expected);
      assert.deepEqual(trailers && entries(trailers), [['x-trailer', 'end']]);
    });

    for (const callback of ['onHeaders', 'onTrailers'] as const) {
      it(`fails a call of any kind with what its ${callback} throws`, async () => {
        await using probe = await world({
          ask: (request) => request,
          async *list() {
            yield { n: 1 };
          },
          async collect(requests) {
            return { n: (await all(requests)).length };
          },
        });
        const thrown = new Error('thrown by the callback');
        const options = {
          [callback]: () => {
            throw thrown;
          },
        };

        await assert.rejects(probe.client.ask({}, options), thrown);
        await assert.rejects(all(probe.client.list({}, options)), thrown);
        await assert.rejects(probe.client.collect([{}], options), thrown);
      });
    }

    it('gives the trailers of a client stream to the caller', async () => {
      await using probe = await world({
        async collect(requests, call) {
          call.setTrailers({ 'x-trailer': 'end' });
          return { n: (await all(requests)).length };
        },
      });
      let trailers: Metadata | undefined;

      await probe.client.collect([{}], { onTrailers: (m) => (trailers = m) });

      assert.deepEqual(trailers && entries(trailers), [['x-trailer', 'end']]);
    });

    it('gives the trailers of a failed call to the caller', async () => {
      await using probe = await world({
        ask(_, call) {
          call.setTrailers({ 'x-trailer': 'end' });
          throw new Error('no');
        },
      });
      let trailers: Metadata | undefined;

      const error = await failure(probe.client.ask({}, { onTrailers: (m) => (trailers = m) }), 'INTERNAL');

      assert.deepEqual(trailers && entries(trailers), [['x-trailer', 'end']]);
      assert.deepEqual(error.metadata && entries(error.metadata), [['x-trailer', 'end']]);
    });

    it('refuses what gRPC cannot carry, before anything is sent', async () => {
      let served = 0;
      await using probe = await world({ ask: () => ({ n: served++ }) });

      await assert.rejects(probe.client.ask({}, { metadata: { 'x-text': 'line\nbreak' } }), TypeError);
      await assert.rejects(probe.client.ask({}, { metadata: { 'grpc-timeout': '1S' } }), TypeError);
      await assert.rejects(all(probe.client.list({}, { metadata: { 'x-text': 'snow ☃' } })), TypeError);

      assert.equal(served, 0);
    });

    it('ends a call whose metadata no header can hold, in either direction', async () => {
      await using probe = await world({
        ask(request, call) {
          if (request.text === 'headers') call.sendHeaders({ 'x-large': 'x'.repeat(1024 * 1024) });
          if (request.text === 'trailers') call.setTrailers({ 'x-large': 'x'.repeat(1024 * 1024) });
          return request;
        },
        async *list({ text }, call) {
          if (text === 'headers') call.sendHeaders({ 'x-large': 'x'.repeat(1024 * 1024) });
          if (text === 'trailers') call.setTrailers({ 'x-large': 'x'.repeat(1024 * 1024) });
          yield { n: 1 };
        },
      });

      await failure(probe.client.ask({}, { metadata: { 'x-large': 'x'.repeat(1024 * 1024) } }), 'RESOURCE_EXHAUSTED');
      await failure(probe.client.ask({ text: 'headers' }), 'INTERNAL');
      await failure(probe.client.ask({ text: 'trailers' }), 'INTERNAL');
      await failure(all(probe.client.list({ text: 'headers' })), 'INTERNAL');
      await failure(all(probe.client.list({ text: 'trailers' })), 'INTERNAL');

      assert.equal((await probe.client.ask({ n: 1 })).n, 1);
    });

    it('refuses more metadata than the server takes', async () => {
      await using probe = await world({ ask: (request) => request });
      const many = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`x-${i}`, '']));

      await failure(probe.client.ask({}, { metadata: { 'x-large': 'x'.repeat(17 * 1024) } }), 'RESOURCE_EXHAUSTED');
      await failure(
        all(probe.client.talk([], { metadata: { 'x-large': 'x'.repeat(17 * 1024) } })),
        'RESOURCE_EXHAUSTED',
      );
      await failure(probe.client.ask({}, { metadata: many }), 'RESOURCE_EXHAUSTED');

      assert.equal((await probe.client.ask({ n: 1 })).n, 1);
    });
  });
});
