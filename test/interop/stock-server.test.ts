import assert from 'node:assert/strict';
import {
  Metadata as GrpcMetadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { encodeStatusDetails } from '@sallyport/core/spi';
import type { Client, Metadata } from 'sallyport';
import { type Mesh, mesh } from 'sallyport/testing';
import { all, failure } from '../conformance/rpc/kit.js';
import { eventually } from '../support/eventually.js';
import { instanceOf } from '../support/instance.js';
import { contextOf } from '../support/registry-context.js';
import { details, type Note, Notebook, note, pemOf, type Query, untypedNotebook } from './notebook.js';

/** A stock grpc-js server and our client, which finds it in the registry. */
interface StockWorld extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly server: Server;
  readonly client: Client<typeof Notebook>;
  /** Metadata of the calls it served. */
  readonly metadata: readonly GrpcMetadata[];
  cancelled: number;
}

async function stockWorld(identity = 'notebook'): Promise<StockWorld> {
  const inner = mesh();
  const server = new Server();
  const metadata: GrpcMetadata[] = [];
  const begin = (call: { metadata: GrpcMetadata; sendMetadata(headers: GrpcMetadata): void }) => {
    metadata.push(call.metadata);
    const headers = new GrpcMetadata();
    headers.set('x-header', 'theirs');
    headers.set('x-header-bin', Buffer.from([9]));
    call.sendMetadata(headers);
  };
  const trailers = new GrpcMetadata();
  trailers.set('x-trailer', 'theirs');
  trailers.set('x-trailer-bin', Buffer.from([8]));

  server.addService(untypedNotebook, {
    Add(call: ServerUnaryCall<Note, Note>, respond: sendUnaryData<Note>) {
      begin(call);
      const { title } = call.request;
      if (title === 'wait') call.on('cancelled', () => world.cancelled++);
      else if (title === 'fail') {
        const failed = new GrpcMetadata();
        failed.set('grpc-status-details-bin', Buffer.from(encodeStatusDetails(9, 'kein Platz 🏰', details)));
        failed.set('x-trailer', 'failed');
        respond({ code: status.FAILED_PRECONDITION, details: 'kein Platz 🏰', metadata: failed });
      } else respond(null, call.request, trailers);
    },
    List(call: ServerWritableStream<Query, Partial<Note>>) {
      begin(call);
      for (let id = 0; id < call.request.limit; id++) call.write({ id: String(id) });
      if (call.request.limit === 0) call.on('cancelled', () => world.cancelled++);
      else call.end(trailers);
    },
    Import(call: ServerReadableStream<Note, unknown>, respond: sendUnaryData<unknown>) {
      begin(call);
      let notes = 0;
      call.on('data', () => notes++);
      call.on('end', () => respond(null, { notes, bytes: '0' }));
    },
    Edit(call: ServerDuplexStream<Note, Note>) {
      begin(call);
      call.on('data', (item: Note) => call.write(item));
      call.on('end', () => call.end(trailers));
    },
  });
  const { ca, cert, key } = pemOf(inner, identity);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      '127.0.0.1:0',
      ServerCredentials.createSsl(ca, [{ cert_chain: cert, private_key: key }], true),
      (error, bound) => (error ? reject(error) : resolve(bound)),
    );
  });
  const session = await inner.registry.open(contextOf('registrant'));
  await session.register(instanceOf('notebook', { endpoints: [{ host: '127.0.0.1', port }] }));
  const web = await inner.callerAs('web');
  const world: StockWorld = {
    mesh: inner,
    server,
    client: web.client(Notebook, { service: 'notebook' }),
    metadata,
    cancelled: 0,
    async [Symbol.asyncDispose]() {
      await inner.stop();
      server.forceShutdown();
    },
  };
  return world;
}

describe('a stock grpc-js server with a right certificate', () => {
  it('answers unary calls: every type of field arrives', async () => {
    await using world = await stockWorld();

    assert.deepEqual(await world.client.Add(note), note);
  });

  it('answers with a stream', async () => {
    await using world = await stockWorld();

    const notes = await all(world.client.List({ limit: 200 }));

    assert.deepEqual(
      notes.map(({ id }) => id),
      Array.from({ length: 200 }, (_, i) => String(i)),
    );
  });

  it('takes a stream', async () => {
    await using world = await stockWorld();

    const { notes } = await world.client.Import(Array.from({ length: 200 }, (_, i) => ({ id: String(i) })));

    assert.equal(notes, 200);
  });

  it('streams both ways', async () => {
    await using world = await stockWorld();

    const echoed = await all(world.client.Edit([{ title: 'a' }, { title: 'b' }]));

    assert.deepEqual(
      echoed.map(({ title }) => title),
      ['a', 'b'],
    );
  });

  it('gets our metadata, and we its headers and trailers', async () => {
    await using world = await stockWorld();
    const seen: Metadata[] = [];
    const options = {
      metadata: { 'x-text': 'value', 'x-bytes-bin': new Uint8Array([0, 255]) },
      onHeaders: (headers: Metadata) => seen.push(headers),
      onTrailers: (trailers: Metadata) => seen.push(trailers),
    };

    await world.client.Add(note, options);
    await all(world.client.List({ limit: 1 }, options));

    for (const received of world.metadata) {
      assert.deepEqual(received.get('x-text'), ['value']);
      assert.deepEqual(received.get('x-bytes-bin'), [Buffer.from([0, 255])]);
    }
    assert.equal(world.metadata.length, 2);
    for (const headers of [seen[0], seen[2]]) {
      assert.equal(headers?.get('x-header'), 'theirs');
      assert.deepEqual([...((headers?.get('x-header-bin') as Uint8Array) ?? [])], [9]);
    }
    for (const trailers of [seen[1], seen[3]]) {
      assert.equal(trailers?.get('x-trailer'), 'theirs');
      assert.deepEqual([...((trailers?.get('x-trailer-bin') as Uint8Array) ?? [])], [8]);
    }
  });

  it('fails a call with code, message, details and trailers', async () => {
    await using world = await stockWorld();

    const error = await failure(world.client.Add({ title: 'fail' }), 'FAILED_PRECONDITION');

    assert.equal(error.message, 'kein Platz 🏰');
    assert.equal(error.details[0]?.typeUrl, details[0]?.typeUrl);
    assert.deepEqual([...(error.details[0]?.value ?? [])], [...(details[0]?.value ?? [])]);
    assert.equal(error.metadata?.get('x-trailer'), 'failed');
  });

  it('learns of our deadlines and cancellations', async () => {
    await using world = await stockWorld();
    const abort = new AbortController();

    await failure(world.client.Add({ title: 'wait' }, { deadlineMs: 1000 }), 'DEADLINE_EXCEEDED');
    await eventually(() => assert.equal(world.cancelled, 1));
    const aborted = failure(all(world.client.List({ limit: 0 }, { signal: abort.signal })), 'CANCELLED');
    await eventually(() => assert.equal(world.metadata.length, 2));
    abort.abort();

    await aborted;
    await eventually(() => assert.equal(world.cancelled, 2));
  });

  it('sends us messages close to our limit, and none above', async () => {
    await using world = await stockWorld();

    const { attachment } = await world.client.Add({ attachment: Buffer.alloc(3 * 1024 * 1024) });

    assert.equal(attachment.length, 3 * 1024 * 1024);
    await failure(world.client.Add({ attachment: Buffer.alloc(4 * 1024 * 1024 + 1) }), 'RESOURCE_EXHAUSTED');
  });

  it('finishes our calls while it shuts down', async () => {
    await using world = await stockWorld();
    const titles: string[] = [];
    let shutDown: Promise<unknown> | undefined;
    async function* edits() {
      yield { title: 'before' };
      while (titles.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      shutDown = new Promise((resolve) => world.server.tryShutdown(resolve));
      yield { title: 'after' };
    }

    for await (const { title } of world.client.Edit(edits())) titles.push(title);

    assert.deepEqual(titles, ['before', 'after']);
    await shutDown;
  });

  it('does not implement what our contract has and its does not', async () => {
    await using world = await stockWorld();
    world.server.unregister('/interop.v1.Notebook/Add');

    await failure(world.client.Add(note), 'UNIMPLEMENTED');
  });

  it('is refused when its certificate is that of another service', async () => {
    await using world = await stockWorld('impostor');

    const error = await failure(world.client.Add(note), 'UNAVAILABLE');

    assert.match(error.message, /wrong-identity: .*\/svc\/impostor answered, expected .*\/svc\/notebook/);
    assert.equal(world.metadata.length, 0);
  });
});
