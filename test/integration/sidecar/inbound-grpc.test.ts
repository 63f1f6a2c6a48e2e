import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants, createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { allow, rules, silentLogger } from '@sallyport/core';
import { type Sidecar, sidecar } from '@sallyport/sidecar';
import { CallError, type Client, type SallyportEvent } from 'sallyport';
import { IssuedSource, mesh } from 'sallyport/testing';
import { all, failure } from '../../conformance/rpc/kit.js';
import { type Note, Notebook, note, type Query, untypedNotebook } from '../../interop/notebook.js';
import { eventually } from '../../support/eventually.js';
import { h2Caller } from '../../support/sidecar/http.js';
import { type SidecarWorld, sidecarWorld } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

interface StockProgram extends AsyncDisposable {
  readonly port: number;
  /** Metadata of the calls it served. */
  readonly seen: readonly Metadata[];
  readonly cancelled: number;
  stop(): void;
}

/** A stock grpc-js server in the clear, as anybody would write one. */
async function stockProgram(port = 0): Promise<StockProgram> {
  const server = new Server();
  const seen: Metadata[] = [];
  let cancelled = 0;
  const begin = (call: { metadata: Metadata; on(event: 'cancelled', listener: () => void): unknown }) => {
    seen.push(call.metadata);
    call.on('cancelled', () => cancelled++);
  };
  const trailers = new Metadata();
  trailers.set('x-trailer', 'theirs');
  server.addService(untypedNotebook, {
    Add(call: ServerUnaryCall<Note, Note>, respond: sendUnaryData<Note>) {
      begin(call);
      const { title } = call.request;
      if (title === 'fail') respond({ code: status.FAILED_PRECONDITION, details: 'no room' });
      else if (title !== 'wait') respond(null, call.request, trailers);
    },
    List(call: ServerWritableStream<Query, Partial<Note>>) {
      begin(call);
      for (let id = 0; id < call.request.limit; id++) call.write({ id: String(id) });
      if (call.request.limit === 0) call.write({ id: '1' });
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
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    );
  });
  return {
    port: bound,
    seen,
    get cancelled() {
      return cancelled;
    },
    stop: () => server.forceShutdown(),
    [Symbol.asyncDispose]: async () => server.forceShutdown(),
  };
}

interface Stage extends AsyncDisposable {
  readonly client: Client<typeof Notebook>;
  readonly door: Sidecar;
  readonly events: readonly SallyportEvent[];
}

/** A service of the SDK that calls the program, which it finds in the registry as if it were one of its own kind. */
async function stage(
  port: number,
  authorize: Parameters<typeof sidecar>[0]['authorize'] = [
    allow({ from: 'spiffe://mesh.test/svc/web', to: 'interop.v1.Notebook/*' }),
  ],
): Promise<Stage> {
  const { authority, registry, id, ...inner } = bound(mesh({ trustDomain: 'mesh.test' }));
  const door = sidecar({
    name: 'notebook',
    tls: new IssuedSource({ identity: authority.issue({ id: id('notebook') }), bundlePem: authority.bundlePem }),
    listen: '127.0.0.1:0',
    inbound: { target: `127.0.0.1:${port}`, protocol: 'grpc' },
    ...(authorize ? { authorize } : {}),
    registry,
    drain: { spreadMs: 1, graceMs: 200 },
    logger: silentLogger,
  });
  const events: SallyportEvent[] = [];
  door.on('*', (event) => events.push(event));
  await door.start();
  const web = await inner.callerAs('web');
  return {
    client: web.client(Notebook, { service: 'notebook' }),
    door,
    events,
    async [Symbol.asyncDispose]() {
      await inner.stop();
      await door.stop();
    },
  };
}

function bound(made: ReturnType<typeof mesh>) {
  return {
    authority: made.authority,
    registry: made.registry,
    id: (name: string) => made.id(name),
    callerAs: (name: string) => made.callerAs(name),
    stop: () => made.stop(),
  };
}

describe('the sidecar before a stock gRPC server', () => {
  it('a client of the SDK makes all four kinds of calls, and the program learns who calls', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);
    const { client } = scene;
    const trailers: unknown[] = [];

    assert.deepEqual(await client.Add(note, { onTrailers: (got) => trailers.push(got.get('x-trailer')) }), note);
    assert.equal((await all(client.List({ limit: 200 }))).length, 200);
    const many = Array.from({ length: 200 }, (_, i) => ({ id: String(i) }));
    assert.equal((await client.Import(many)).notes, 200);
    assert.deepEqual(
      (await all(client.Edit([{ title: 'a' }, { title: 'b' }]))).map(({ title }) => title),
      ['a', 'b'],
    );

    assert.deepEqual(trailers, ['theirs']);
    assert.deepEqual(
      program.seen.map((metadata) => metadata.get('x-sallyport-peer')),
      Array.from({ length: 4 }, () => ['spiffe://mesh.test/svc/web']),
    );
  });

  it('status and words of a failure arrive', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);

    const error = await failure(scene.client.Add({ title: 'fail' }), 'FAILED_PRECONDITION');

    assert.equal(error.message, 'no room');
  });

  it('what the caller says of itself does not arrive, what it says otherwise does', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);

    await scene.client.Add(note, { metadata: { 'x-forwarded-client-cert': 'URI=spiffe://x/y', 'x-own': 'mine' } });

    const [metadata] = program.seen;
    assert.deepEqual(metadata?.get('x-forwarded-client-cert'), []);
    assert.deepEqual(metadata?.get('x-own'), ['mine']);
  });

  it('no rule: PERMISSION_DENIED, and the program hears nothing', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port, [
      allow({ from: 'spiffe://mesh.test/svc/web', to: 'interop.v1.Notebook/List' }),
    ]);

    await failure(scene.client.Add(note), 'PERMISSION_DENIED');
    await failure(scene.client.Import([note]), 'PERMISSION_DENIED');

    assert.equal(program.seen.length, 0);
    assert.deepEqual(
      scene.events.flatMap((event) => (event.type === 'call-denied' ? [event.method] : [])),
      ['interop.v1.Notebook/Add', 'interop.v1.Notebook/Import'],
    );
    assert.equal((await all(scene.client.List({ limit: 2 }))).length, 2);
  });

  it('deadlines and cancellations reach the program', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);
    const abort = new AbortController();

    await failure(scene.client.Add({ title: 'wait' }, { deadlineMs: 500 }), 'DEADLINE_EXCEEDED');
    await eventually(() => assert.equal(program.cancelled, 1));
    const stream = failure(all(scene.client.List({ limit: 0 }, { signal: abort.signal })), 'CANCELLED');
    await eventually(() => assert.equal(program.seen.length, 2));
    abort.abort();

    await stream;
    await eventually(() => assert.equal(program.cancelled, 2));
    assert.match(String(program.seen[0]?.get('grpc-timeout')), /^$|^\d+[mun]$/);
  });

  it('messages of 3 MiB arrive, both ways', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);
    const attachment = Buffer.alloc(3 * 1024 * 1024, 7);

    const answer = await scene.client.Add({ attachment });

    assert.ok(Buffer.from(answer.attachment).equals(attachment));
  });

  it('a program that is down is UNAVAILABLE, and found again when it is back', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);
    await scene.client.Add(note);

    program.stop();
    await failure(scene.client.Add(note, { deadlineMs: 5000 }), 'UNAVAILABLE');
    await using back = await stockProgram(program.port);
    await eventually(async () => assert.deepEqual(await scene.client.Add(note, { deadlineMs: 2000 }), note));

    assert.ok(back.seen.length > 0);
  });

  it('a program that dies in the middle of a stream never looks as if it had ended', async () => {
    await using program = await stockProgram();
    await using scene = await stage(program.port);
    const stream = scene.client.List({ limit: 0 })[Symbol.asyncIterator]();
    assert.equal((await stream.next()).value?.id, '1');

    program.stop();

    await assert.rejects(stream.next(), (error: unknown) => error instanceof CallError && error.status !== 'OK');
  });

  it('when the rules change, a stream of a caller who may not any more ends, others go on', async () => {
    using folder = temporaryFolder();
    const rule = { name: 'all', effect: 'allow', from: 'spiffe://mesh.test/svc/web', to: 'interop.v1.Notebook/List' };
    const file = folder.write('rules.json', JSON.stringify({ version: 1, rules: [rule] }));
    await using program = await stockProgram();
    await using scene = await stage(program.port, rules.fromFile(file, { pollMs: 20 }));
    const stream = scene.client.List({ limit: 0 })[Symbol.asyncIterator]();
    await stream.next();

    folder.write('rules.json', JSON.stringify({ version: 1, rules: [{ ...rule, to: 'interop.v1.Notebook/Add' }] }));

    await failure(stream.next(), 'PERMISSION_DENIED');
    await eventually(() => assert.equal(program.cancelled, 1));
    assert.deepEqual(await scene.client.Add(note), note);
  });
});

/** A program that speaks HTTP/2 in the clear, by hand. */
async function h2Program(serve: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void) {
  const server = createServer();
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    serve(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

const grpc = { 'content-type': 'application/grpc', te: 'trailers' };

function open(world: SidecarWorld, port: number, limits = {}) {
  return world.start({
    inbound: { target: `127.0.0.1:${port}`, protocol: 'grpc' },
    authorize: [allow({ from: 'spiffe://sidecar.test/svc/web', to: 'a.B/*' })],
    limits,
  });
}

describe('gRPC on the wire before the program', () => {
  it('a refusal is headers alone (Trailers-Only), in the words of gRPC or of HTTP', async () => {
    let heard = 0;
    await using program = await h2Program(() => heard++);
    await using world = sidecarWorld();
    const door = await open(world, program.port);
    using web = await h2Caller(world, door);
    const call = (path: string, headers = {}, method = 'POST') =>
      web.ask({ method, path, headers: { ...grpc, ...headers }, body: 'x' });

    const denied = await call('/a.C/Get');
    const others = await Promise.all([
      call('/a.B/Get?x=1'),
      call('//a.B/Get'),
      call('/a.B/Get/'),
      call('/a.B/%47et'),
      call('/A.b/get'),
      call('/a.B/Get', { 'content-type': 'application/json' }),
      call('/a.B/Get', {}, 'PUT'),
    ]);

    assert.deepEqual([denied.status, denied.headers['grpc-status'], denied.body.length], [200, '7', 0]);
    assert.equal(denied.headers['content-type'], 'application/grpc');
    assert.deepEqual(denied.trailers, {});
    assert.deepEqual(
      others.map(({ status: code, headers }) => headers['grpc-status'] ?? code),
      ['7', '7', '7', '7', '7', 415, '12'],
    );
    assert.equal(heard, 0);
  });

  it('headers of gRPC pass that a caller may say, others do not; answers pass as they are', async () => {
    const seen: IncomingHttpHeaders[] = [];
    await using program = await h2Program((stream, headers) => {
      seen.push(headers);
      stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '5' }, { endStream: true });
    });
    await using world = sidecarWorld();
    const door = await open(world, program.port);
    using web = await h2Caller(world, door);

    const answer = await web.ask({
      method: 'POST',
      path: '/a.B/Get',
      headers: {
        ...grpc,
        'grpc-timeout': '5S',
        'grpc-encoding': 'gzip',
        'grpc-accept-encoding': 'gzip',
        'grpc-internal': 'x',
        'grpc-status': '0',
        'x-sallyport-peer': 'spiffe://sidecar.test/svc/root',
        x_sallyport_peer: 'spiffe://sidecar.test/svc/root',
      },
      body: Buffer.alloc(5),
    });

    assert.deepEqual([answer.status, answer.headers['grpc-status'], answer.trailers], [200, '5', {}]);
    const [headers] = seen;
    assert.deepEqual(
      Object.keys(headers ?? {})
        .filter((name) => !name.startsWith(':'))
        .sort(),
      ['content-type', 'grpc-accept-encoding', 'grpc-encoding', 'grpc-timeout', 'te', 'x-sallyport-peer'],
    );
    assert.equal(headers?.['x-sallyport-peer'], 'spiffe://sidecar.test/svc/web');
    assert.equal(headers?.te, 'trailers');
    assert.equal(headers?.[':scheme'], 'http');
  });

  it('the code of a reset is passed on, before the answer and in the middle of it', async () => {
    await using program = await h2Program((stream, headers) => {
      if (headers[':path'] === '/a.B/Half') {
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
        stream.write(Buffer.alloc(5));
      }
      setTimeout(() => stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM), 20);
    });
    await using world = sidecarWorld();
    const door = await open(world, program.port);
    using web = await h2Caller(world, door);

    for (const path of ['/a.B/None', '/a.B/Half']) {
      await assert.rejects(web.ask({ method: 'POST', path, headers: grpc, body: 'x' }), /ENHANCE_YOUR_CALM/);
    }
  });

  it('half of an upload never looks like a whole one', async () => {
    const log: string[] = [];
    await using program = await h2Program((stream) => {
      stream.resume();
      stream.once('aborted', () => log.push('aborted'));
      stream.once('close', () => log.push(`closed ${stream.rstCode}`));
    });
    await using world = sidecarWorld();
    const door = await open(world, program.port);
    using web = await h2Caller(world, door);
    const stream = web.session.request(
      { ':method': 'POST', ':path': '/a.B/Import', ...grpc },
      { waitForTrailers: true },
    );
    stream.on('error', () => {});
    stream.write(Buffer.alloc(100));
    await eventually(() => assert.equal(door.sidecar.connections.inbound, 1));
    await new Promise((resolve) => setTimeout(resolve, 50));
    stream.close(constants.NGHTTP2_CANCEL);

    await eventually(() => assert.deepEqual(log, ['aborted', `closed ${constants.NGHTTP2_CANCEL}`]));
  });

  it('a call of which nothing travels is given up, and one that lasts too long', async () => {
    await using program = await h2Program((stream) => stream.resume());
    await using world = sidecarWorld();
    const idle = await open(world, program.port, { requestIdleTimeoutMs: 100 });
    using web = await h2Caller(world, idle);

    const answer = await web.ask({ method: 'POST', path: '/a.B/Get', headers: grpc, body: 'x' });

    assert.deepEqual([answer.status, answer.headers['grpc-status']], [200, '4']);
  });

  it('more calls than the program takes on one connection get another one', async () => {
    const held: ServerHttp2Stream[] = [];
    await using program = await h2Program((stream) => held.push(stream));
    await using world = sidecarWorld();
    const door = await open(world, program.port, { maxRequestsPerConnection: 150 });
    using web = await h2Caller(world, door);
    const calls = Array.from({ length: 120 }, () =>
      web.ask({ method: 'POST', path: '/a.B/Get', headers: grpc, body: 'x' }),
    );

    await eventually(() => assert.equal(held.length, 120));
    const sessions = new Set(held.map(({ session }) => session));
    for (const stream of held) stream.respond({ ':status': 200, 'grpc-status': '0' }, { endStream: true });

    assert.equal((await Promise.all(calls)).length, 120);
    assert.equal(sessions.size, 2);
  });
});
