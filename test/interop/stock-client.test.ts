import assert from 'node:assert/strict';
import {
  type CallOptions,
  compressionAlgorithms,
  Metadata,
  type ServiceError,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { decodeStatusDetails } from '@sallyport/core/spi';
import { clientOn } from '@sallyport/transport-mtls/spi';
import { createService, silentLogger } from 'sallyport';
import { IssuedSource } from 'sallyport/testing';
import { all } from '../conformance/rpc/kit.js';
import { eventually } from '../support/eventually.js';
import {
  details,
  type Note,
  Notebook,
  note,
  notebookService,
  type StockClient,
  stockClient,
  stockMethod,
} from './notebook.js';

interface Answer {
  readonly error: ServiceError | undefined;
  readonly message: Partial<Note> & { readonly notes?: number; readonly bytes?: string };
  readonly headers: Metadata;
  readonly status: StatusObject;
}

type Name = Parameters<typeof stockMethod>[0];

function unary(
  client: StockClient,
  name: Name,
  request: object,
  { metadata = new Metadata(), ...options }: CallOptions & { metadata?: Metadata } = {},
): Promise<Answer> {
  const method = stockMethod(name);
  return new Promise((resolve) => {
    const answer: { -readonly [K in keyof Answer]?: Answer[K] } = { headers: new Metadata() };
    const call = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadata,
      options,
      (error, message) => {
        answer.error = error ?? undefined;
        answer.message = message ?? {};
      },
    );
    call.on('metadata', (headers) => {
      answer.headers = headers;
    });
    call.on('status', (end) => {
      answer.status = end;
      setImmediate(() => resolve(answer as Answer));
    });
  });
}

async function list(client: StockClient, limit: number, options: CallOptions = {}): Promise<Note[]> {
  const method = stockMethod('List');
  const call = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    { limit },
    options,
  );
  const notes: Note[] = [];
  for await (const item of call) notes.push(item);
  return notes;
}

function upload(client: StockClient, notes: readonly object[]): Promise<{ notes?: number; bytes?: string }> {
  const method = stockMethod('Import');
  return new Promise((resolve, reject) => {
    const call = client.makeClientStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      (error, summary) => (error ? reject(error) : resolve(summary ?? {})),
    );
    for (const item of notes) call.write(item);
    call.end();
  });
}

describe('a stock grpc-js client with a right certificate', () => {
  it('makes unary calls: every type of field arrives', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);

    const { error, message } = await unary(client, 'Add', note);

    assert.equal(error, undefined);
    assert.deepEqual(message, note);
    assert.equal(world.calls[0]?.peer.id, world.mesh.id('stock'));
  });

  it('is served on the port where callers on the fast lane are served at the same time', async () => {
    await using world = await notebookService();
    const { mesh, service, calls } = world;
    using stock = stockClient(mesh, service);
    const fast = createService({
      name: 'stock',
      version: '1.0.0',
      registry: mesh.registry,
      tls: new IssuedSource({
        identity: mesh.authority.issue({ id: mesh.id('stock') }),
        bundlePem: mesh.authority.bundlePem,
      }),
      client: clientOn(['fast'], {}),
      logger: silentLogger,
    });
    await fast.start();
    const notebook = fast.client(Notebook, { service: 'notebook' });
    const refusals: string[] = [];
    service.on('handshake-refused', ({ reason }) => refusals.push(reason));

    const rounds = Array.from({ length: 50 }, async () => {
      const [ours, theirs] = await Promise.all([notebook.Add(note), unary(stock, 'Add', note)]);
      assert.deepEqual(ours, note);
      assert.deepEqual(theirs.message, note);
    });
    const [notes, items] = await Promise.all([list(stock, 300), all(notebook.List({ limit: 300 })), ...rounds]);

    assert.deepEqual(items, notes);
    assert.equal(calls.length, 102);
    assert.equal(service.endpoints.length, 1);
    assert.deepEqual(refusals, []);
    await fast.stop();
  });

  it('reads a stream of responses', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);

    const notes = await list(client, 200);

    assert.deepEqual(
      notes.map(({ id }) => id),
      Array.from({ length: 200 }, (_, i) => String(i)),
    );
  });

  it('sends a stream of requests', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);

    const summary = await upload(
      client,
      Array.from({ length: 200 }, () => ({ attachment: Buffer.alloc(10) })),
    );

    assert.deepEqual(summary, { notes: 200, bytes: '2000' });
  });

  it('streams both ways', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);
    const method = stockMethod('Edit');
    const call = client.makeBidiStreamRequest(method.path, method.requestSerialize, method.responseDeserialize);
    const titles: string[] = [];

    call.write({ title: '0' });
    for await (const { title } of call as AsyncIterable<Note>) {
      titles.push(title);
      if (titles.length < 20) call.write({ title: String(titles.length) });
      else call.end();
    }

    assert.deepEqual(
      titles,
      Array.from({ length: 20 }, (_, i) => String(i)),
    );
  });

  it('sends metadata and gets headers and trailers, text and bytes', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);
    const metadata = new Metadata();
    metadata.set('x-text', 'value');
    metadata.add('x-bytes-bin', Buffer.from([0, 255]));
    metadata.add('x-bytes-bin', Buffer.from([7]));

    const { headers, status: end } = await unary(client, 'Add', note, { metadata });

    const received = world.calls[0]?.metadata;
    assert.equal(received?.get('x-text'), 'value');
    assert.deepEqual(
      received?.getAll('x-bytes-bin').map((bytes) => [...Buffer.from(bytes as Uint8Array)]),
      [[0, 255], [7]],
    );
    assert.deepEqual(headers.get('x-header'), ['ours']);
    assert.deepEqual(headers.get('x-header-bin'), [Buffer.from([9])]);
    assert.deepEqual(end.metadata.get('x-trailer'), ['ours']);
    assert.deepEqual(end.metadata.get('x-trailer-bin'), [Buffer.from([8])]);
  });

  it('gets code, message and details of a failure', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);

    const { error } = await unary(client, 'Add', { title: 'fail' });

    assert.equal(error?.code, status.FAILED_PRECONDITION);
    assert.equal(error?.details, 'kein Platz 🏰');
    const [bytes] = error?.metadata.get('grpc-status-details-bin') ?? [];
    const [detail] = decodeStatusDetails(bytes as Buffer);
    assert.equal(detail?.typeUrl, details[0]?.typeUrl);
    assert.deepEqual([...(detail?.value ?? [])], [...(details[0]?.value ?? [])]);
  });

  it('sets a deadline that ends the handler', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);

    const { error } = await unary(client, 'Add', { title: 'wait' }, { deadline: Date.now() + 200 });

    assert.equal(error?.code, status.DEADLINE_EXCEEDED);
    await eventually(() => assert.equal(world.cancelled(), 1));
    assert.ok(Math.abs((world.calls[0]?.deadlineAt ?? 0) - Date.now()) < 60_000);
  });

  it('gets the limit of the server when it sets no deadline, and the handler is told', async () => {
    await using world = await notebookService({ server: { limits: { unaryDeadlineMs: 50 } } });
    using client = stockClient(world.mesh, world.service);

    const { error } = await unary(client, 'Add', { title: 'wait' });

    assert.equal(error?.code, status.DEADLINE_EXCEEDED);
    assert.match(String(error?.details), /the limit of the server passed/);
    assert.equal(world.calls[0]?.deadlineAt, Number.POSITIVE_INFINITY);
    assert.equal(world.cancelled(), 1);
  });

  it('cancels a call', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);
    const method = stockMethod('Edit');
    const call = client.makeBidiStreamRequest(method.path, method.requestSerialize, method.responseDeserialize);
    const ended = new Promise<ServiceError>((resolve) => call.on('error', (error) => resolve(error as ServiceError)));
    call.write({ title: 'x' });
    await eventually(() => assert.equal(world.calls.length, 1));

    call.cancel();

    assert.equal((await ended).code, status.CANCELLED);
    await eventually(() => assert.equal(world.cancelled(), 1));
  });

  it('sends messages close to the limit, and none above', async () => {
    await using world = await notebookService({ server: { limits: { maxMessageBytes: 1024 * 1024 } } });
    using client = stockClient(world.mesh, world.service);

    const large = await unary(client, 'Add', { attachment: Buffer.alloc(1024 * 1024 - 64) });
    const tooLarge = await unary(client, 'Add', { attachment: Buffer.alloc(1024 * 1024 + 64) });

    assert.equal(large.error, undefined);
    assert.equal(large.message.attachment?.length, 1024 * 1024 - 64);
    assert.equal(tooLarge.error?.code, status.RESOURCE_EXHAUSTED);
  });

  it('compresses what it sends', async () => {
    await using world = await notebookService();
    for (const algorithm of [compressionAlgorithms.gzip, compressionAlgorithms.deflate]) {
      using client = stockClient(world.mesh, world.service, {
        'grpc.default_compression_algorithm': algorithm,
      });

      const { message } = await unary(client, 'Add', { ...note, title: 'x'.repeat(10_000) });

      assert.equal(message.title, 'x'.repeat(10_000));
    }
  });

  it('cannot bomb the server with what it compresses', async () => {
    await using world = await notebookService({ server: { limits: { maxMessageBytes: 64 * 1024 } } });
    using bomber = stockClient(world.mesh, world.service, {
      'grpc.default_compression_algorithm': compressionAlgorithms.gzip,
    });
    using client = stockClient(world.mesh, world.service);

    const { error } = await unary(bomber, 'Add', { attachment: Buffer.alloc(20 * 1024 * 1024) });

    assert.equal(error?.code, status.RESOURCE_EXHAUSTED);
    assert.equal(world.calls.length, 0);
    assert.equal((await unary(client, 'Add', note)).error, undefined);
  });

  it('may keep its connection alive with pings', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service, {
      'grpc.keepalive_time_ms': 20,
      'grpc.keepalive_timeout_ms': 5000,
      'grpc.keepalive_permit_without_calls': 1,
    });
    const closed: unknown[] = [];
    world.service.on('connection-closed-by-policy', (event) => closed.push(event));

    await unary(client, 'Add', note);
    await new Promise((resolve) => setTimeout(resolve, 300));

    assert.equal((await unary(client, 'Add', note)).error, undefined);
    assert.deepEqual(closed, []);
  });

  it('learns that a method does not exist', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);
    const bytes = (value: Buffer) => value;

    const code = await new Promise((resolve) => {
      client.makeUnaryRequest('/interop.v1.Notebook/Burn', bytes, bytes, Buffer.alloc(0), (error) =>
        resolve(error?.code),
      );
    });

    assert.equal(code, status.UNIMPLEMENTED);
  });

  it('learns that no rule allows it', async () => {
    await using world = await notebookService({ authorize: [] });
    using client = stockClient(world.mesh, world.service);

    assert.equal((await unary(client, 'Add', note)).error?.code, status.PERMISSION_DENIED);
  });

  it('finishes its calls while the server shuts down', async () => {
    await using world = await notebookService();
    using client = stockClient(world.mesh, world.service);
    const method = stockMethod('Edit');
    const call = client.makeBidiStreamRequest(method.path, method.requestSerialize, method.responseDeserialize);
    const titles: string[] = [];
    call.on('data', ({ title }: Note) => titles.push(title));
    const end = new Promise<StatusObject>((resolve) => call.on('status', resolve));
    call.write({ title: 'before' });
    await eventually(() => assert.deepEqual(titles, ['before']));

    const stopped = world.service.stop();
    await eventually(() => assert.equal(world.service.state, 'draining'));
    call.write({ title: 'after' });
    await eventually(() => assert.deepEqual(titles, ['before', 'after']));
    call.end();

    assert.equal((await end).code, status.OK);
    await stopped;
  });
});
