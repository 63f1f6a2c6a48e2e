import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  type CallOptions,
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  type StatusObject,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { allow, deny } from '@sallyport/core';
import { eventually } from '../support/eventually.js';
import { idOf, leavesNothingOpen, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';
import { type Note, note, type Query, stockMethod, untypedNotebook } from './notebook.js';

/** A stock server in the clear, which knows of no identity but by a header. */
interface StockServer extends AsyncDisposable {
  readonly address: string;
  readonly metadata: readonly Metadata[];
  readonly cancelled: number;
}

/** `address`: where it was before. */
async function stockServer(at = '127.0.0.1:0'): Promise<StockServer> {
  const server = new Server();
  const metadata: Metadata[] = [];
  let cancelled = 0;
  const begin = (call: { metadata: Metadata; sendMetadata(headers: Metadata): void }) => {
    metadata.push(call.metadata);
    call.sendMetadata(metadataOf({ 'x-header': 'theirs' }));
  };
  const trailers = metadataOf({ 'x-trailer': 'theirs' });
  server.addService(untypedNotebook, {
    Add(call: ServerUnaryCall<Note, Note>, respond: sendUnaryData<Note>) {
      begin(call);
      const { title } = call.request;
      if (title === 'wait') call.on('cancelled', () => cancelled++);
      else if (title === 'fail') {
        respond({ code: status.FAILED_PRECONDITION, details: 'kein Platz 🏰', metadata: trailers });
      } else respond(null, call.request, trailers);
    },
    List(call: ServerWritableStream<Query, Partial<Note>>) {
      begin(call);
      for (let id = 0; id < call.request.limit; id++) call.write({ id: String(id) });
      if (call.request.limit === 0) call.on('cancelled', () => cancelled++);
      else call.end(trailers);
    },
    Import(call: ServerReadableStream<Note, unknown>, respond: sendUnaryData<unknown>) {
      begin(call);
      let notes = 0;
      let bytes = 0;
      call.on('data', ({ attachment }: Note) => {
        notes++;
        bytes += attachment.length;
      });
      // Half closed: the caller has said all, the answer is still to come.
      call.on('end', () => respond(null, { notes, bytes: String(bytes) }, trailers));
    },
    Edit(call: ServerDuplexStream<Note, Note>) {
      begin(call);
      call.on('data', (item: Note) => call.write(item));
      call.on('end', () => call.end(trailers));
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(at, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    address: `127.0.0.1:${port}`,
    metadata,
    get cancelled() {
      return cancelled;
    },
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
    },
  };
}

function metadataOf(entries: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(entries)) metadata.set(name, value);
  return metadata;
}

interface Pair {
  readonly world: SidecarWorld;
  readonly web: Started;
  readonly notebook: Started;
}

/** A stock client and a stock server, each beside a sidecar. */
async function pair(server: StockServer, use: (client: Client, pair: Pair) => Promise<void>): Promise<void> {
  await using world = sidecarWorld();
  const notebook = await world.start({
    name: 'notebook',
    inbound: { target: server.address, protocol: 'grpc' },
    authorize: [
      allow({ from: idOf('web'), to: 'interop.v1.Notebook/*' }),
      deny({ from: idOf('web'), to: 'interop.v1.Notebook/Erase' }),
    ],
  });
  const [door] = notebook.sidecar.endpoints;
  assert.ok(door);
  const web = await world.start({
    name: 'web',
    outbound: { listen: '127.0.0.1:0' },
    upstreams: {
      notebook: { protocol: 'grpc', addresses: [`${door.host}:${door.port}`], identity: idOf('notebook') },
    },
  });
  const client = new Client(`dns:///${web.sidecar.upstreams.notebook}`, credentials.createInsecure(), {
    'grpc.default_authority': 'notebook',
    'grpc.enable_http_proxy': 0,
    'grpc.use_local_subchannel_pool': 1,
  });
  try {
    await use(client, { world, web, notebook });
  } finally {
    client.close();
  }
}

interface Outcome {
  readonly error: ServiceError | undefined;
  readonly message: Partial<Note> & { readonly notes?: number; readonly bytes?: string };
  readonly headers: Metadata;
  readonly end: StatusObject;
}

function unary(client: Client, request: Partial<Note>, options: CallOptions = {}): Promise<Outcome> {
  const { path, requestSerialize, responseDeserialize } = stockMethod('Add');
  return new Promise((resolve) => {
    let headers = new Metadata();
    let outcome: Pick<Outcome, 'error' | 'message'> = { error: undefined, message: {} };
    const metadata = metadataOf({ 'x-tenant': 'blue', 'x-sallyport-peer': 'spiffe://sidecar.test/svc/admin' });
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      options,
      (error, message) => {
        outcome = { error: error ?? undefined, message: message ?? {} };
      },
    );
    call.on('metadata', (found) => {
      headers = found;
    });
    call.on('status', (end) => setImmediate(() => resolve({ ...outcome, headers, end })));
  });
}

function edit(client: Client) {
  const { path, requestSerialize, responseDeserialize } = stockMethod('Edit');
  return client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
}

function list(client: Client, limit: number) {
  const { path, requestSerialize, responseDeserialize } = stockMethod('List');
  return client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { limit });
}

describe('a stock gRPC client and a stock gRPC server, each beside a sidecar', () => {
  it('unary: message, metadata and trailers arrive, and the server learns who called', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const { error, message, headers, end } = await unary(client, note);

      assert.equal(error, undefined);
      assert.deepEqual(message, note);
      assert.deepEqual(headers.get('x-header'), ['theirs']);
      assert.deepEqual(end.metadata.get('x-trailer'), ['theirs']);
      assert.deepEqual(server.metadata[0]?.get('x-tenant'), ['blue']);
      assert.deepEqual(server.metadata[0]?.get('x-sallyport-peer'), [idOf('web')]);
    });
  });

  it('unary: status, words and trailers of a failure arrive', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const { error, end } = await unary(client, { title: 'fail' });

      assert.equal(error?.code, status.FAILED_PRECONDITION);
      assert.equal(error?.details, 'kein Platz 🏰');
      assert.deepEqual(end.metadata.get('x-trailer'), ['theirs']);
    });
  });

  it('unary: the deadline of the client arrives, and its end cancels the call at the server', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const { error } = await unary(client, { title: 'wait' }, { deadline: Date.now() + 300 });

      assert.equal(error?.code, status.DEADLINE_EXCEEDED);
      await eventually(() => assert.equal(server.cancelled, 1));
    });
  });

  it('server stream: 5,000 messages in order', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const ids: string[] = [];
      for await (const { id } of list(client, 5000) as AsyncIterable<Note>) ids.push(id);

      assert.deepEqual(
        ids,
        Array.from({ length: 5000 }, (_, id) => String(id)),
      );
    });
  });

  it('server stream: cancelled by the client, it ends at the server', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const call = list(client, 0);
      call.on('error', () => {});
      await once(call, 'metadata');

      call.cancel();

      await eventually(() => assert.equal(server.cancelled, 1));
    });
  });

  it('client stream: the answer comes after the half close, 8 MiB whole', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const { path, requestSerialize, responseDeserialize } = stockMethod('Import');
      const attachment = randomBytes(256 * 1024);
      const summary = await new Promise<Outcome['message'] | undefined>((resolve, reject) => {
        const call = client.makeClientStreamRequest(path, requestSerialize, responseDeserialize, (error, answer) =>
          error ? reject(error) : resolve(answer),
        );
        for (let i = 0; i < 32; i++) call.write({ attachment });
        call.end();
      });

      assert.deepEqual(summary, { notes: 32, bytes: String(8 * 1024 * 1024) });
    });
  });

  it('both ways at once: a message is answered before the next one is sent, and the end follows the half close', async () => {
    await using server = await stockServer();
    await pair(server, async (client) => {
      const call = edit(client);
      for (let id = 0; id < 50; id++) {
        call.write({ id: String(id) });
        const [answer] = await once(call, 'data');
        assert.equal(answer.id, String(id));
      }
      call.end();
      const [end] = await once(call, 'status');

      assert.equal(end.code, status.OK);
      assert.deepEqual(end.metadata.get('x-trailer'), ['theirs']);
    });
  });

  it('a denied method and an undeclared upstream are refused in the words of gRPC', async () => {
    await using server = await stockServer();
    await pair(server, async (client, { web }) => {
      const denied = await codeOf(client, '/interop.v1.Notebook/Erase');
      const stranger = new Client(`dns:///${web.sidecar.upstreams.notebook}`, credentials.createInsecure(), {
        'grpc.default_authority': 'ledger',
      });
      const undeclared = await codeOf(stranger, '/interop.v1.Notebook/Add');
      stranger.close();

      assert.equal(denied, status.PERMISSION_DENIED);
      assert.equal(undeclared, status.PERMISSION_DENIED);
      assert.deepEqual(server.metadata, []);
    });
  });

  it('a server that is gone is UNAVAILABLE, and back it is found again', async () => {
    const server = await stockServer();
    await pair(server, async (client) => {
      assert.equal((await unary(client, note)).error, undefined);
      await server[Symbol.asyncDispose]();
      assert.equal((await unary(client, note)).error?.code, status.UNAVAILABLE);

      await using _back = await stockServer(server.address);

      await eventually(async () => assert.equal((await unary(client, note)).error, undefined));
    });
  });

  it('leave nothing open: calls, cancelled calls and streams', async () => {
    await using server = await stockServer();
    await leavesNothingOpen(() =>
      pair(server, async (client, { web, notebook }) => {
        await Promise.all(Array.from({ length: 50 }, () => unary(client, note)));
        const call = list(client, 0);
        call.on('error', () => {});
        call.cancel();
        client.close();
        await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
        await web.sidecar.stop();
        await eventually(() => assert.equal(notebook.sidecar.connections.inbound, 0));
      }),
    );
  });
});

function codeOf(client: Client, path: string): Promise<number | undefined> {
  const { requestSerialize, responseDeserialize } = stockMethod('Add');
  return new Promise((resolve) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, note, (error) => resolve(error?.code));
  });
}
