import assert from 'node:assert/strict';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { allow, bidi, defineContract, unary } from 'sallyport';
import { type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { pemOf } from './notebook.js';

const Greeter = defineContract('interop.v1.Greeter', {
  hello: unary(z.object({ name: z.string().min(1) }), z.object({ greeting: z.string() })),
  chat: bidi(z.object({ name: z.string() }), z.object({ greeting: z.string() })),
});

interface Answer {
  readonly headers: IncomingHttpHeaders;
  /** Of the end of the stream, or of its beginning when that was all. */
  readonly trailers: IncomingHttpHeaders;
  readonly messages: readonly unknown[];
}

/** gRPC framing (PROTOCOL-HTTP2.md): a flag, the length, the message. */
function frame(message: string, flag = 0): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flag, 0);
  head.writeUInt32BE(Buffer.byteLength(message), 1);
  return Buffer.concat([head, Buffer.from(message)]);
}

function unframe(bytes: Buffer): unknown[] {
  const messages: unknown[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    messages.push(JSON.parse(bytes.subarray(at + 5, end).toString()));
    at = end;
  }
  return messages;
}

function post(
  session: ClientHttp2Session,
  path: string,
  body: Buffer,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    let first: IncomingHttpHeaders = {};
    let last: IncomingHttpHeaders | undefined;
    const parts: Buffer[] = [];
    stream.on('response', (received) => {
      first = received;
    });
    stream.on('trailers', (received) => {
      last = received;
    });
    stream.on('data', (bytes: Buffer) => parts.push(bytes));
    stream.on('error', reject);
    stream.on('close', () =>
      resolve({ headers: first, trailers: last ?? first, messages: unframe(Buffer.concat(parts)) }),
    );
    stream.end(body);
  });
}

describe('gRPC by hand over node:http2, as curl would speak it', () => {
  let world: Mesh;
  let session: ClientHttp2Session;

  before(async () => {
    world = mesh();
    const service = world.service('greeter', {
      authorize: [allow({ from: world.id('by-hand'), to: 'interop.v1.Greeter/*' })],
      server: { limits: { maxMessageBytes: 1000 } },
    });
    service.handle(Greeter, {
      hello: ({ name }, call) => {
        call.setTrailers({ 'x-trailer': 'end' });
        return { greeting: `Hello ${name}` };
      },
      async *chat(requests) {
        for await (const { name } of requests) yield { greeting: `Hello ${name}` };
      },
    });
    await world.start();
    const [endpoint] = service.endpoints;
    session = connect(`https://${endpoint?.host}:${endpoint?.port}`, {
      ...pemOf(world, 'by-hand'),
      checkServerIdentity: () => undefined,
      servername: 'greeter.internal',
    });
    await new Promise((resolve, reject) => session.once('connect', resolve).once('error', reject));
  });

  after(async () => {
    session.destroy();
    await world.stop();
  });

  it('answers a JSON contract with JSON, status and trailers', async () => {
    const { headers, trailers, messages } = await post(session, '/interop.v1.Greeter/hello', frame('{"name":"Ada"}'));

    assert.equal(headers[':status'], 200);
    assert.match(String(headers['content-type']), /^application\/grpc/);
    assert.deepEqual(messages, [{ greeting: 'Hello Ada' }]);
    assert.equal(trailers['grpc-status'], '0');
    assert.equal(trailers['x-trailer'], 'end');
  });

  it('answers each message of a stream', async () => {
    const body = Buffer.concat(['a', 'b', 'c'].map((name) => frame(JSON.stringify({ name }))));

    const { trailers, messages } = await post(session, '/interop.v1.Greeter/chat', body);

    assert.deepEqual(messages, [{ greeting: 'Hello a' }, { greeting: 'Hello b' }, { greeting: 'Hello c' }]);
    assert.equal(trailers['grpc-status'], '0');
  });

  it('refuses a message that breaks the contract with status and details', async () => {
    const { trailers } = await post(session, '/interop.v1.Greeter/hello', frame('{"name":""}'));

    assert.equal(trailers['grpc-status'], '3');
    assert.match(decodeURIComponent(String(trailers['grpc-message'])), /request field "name"/);
    assert.ok(trailers['grpc-status-details-bin']);
  });

  for (const [what, path, body, headers, status] of [
    ['what is not JSON', 'hello', frame('{'), {}, '3'],
    ['an unknown method', 'burn', frame('{}'), {}, '12'],
    ['a message over the limit', 'hello', frame(JSON.stringify({ name: 'x'.repeat(1000) })), {}, '8'],
    ['no message at all', 'hello', Buffer.alloc(0), {}, '12'],
    [
      'two messages where there is one',
      'hello',
      Buffer.concat([frame('{"name":"a"}'), frame('{"name":"b"}')]),
      {},
      '12',
    ],
    ['an encoding nobody knows', 'hello', frame('{"name":"a"}', 1), { 'grpc-encoding': 'zstd' }, '12'],
    ['a compressed message that is none', 'hello', frame('{"name":"a"}', 1), { 'grpc-encoding': 'gzip' }, '13'],
    ['a deadline that is none', 'hello', frame('{"name":"a"}'), { 'grpc-timeout': 'soon' }, '13'],
    ['a call without time', 'chat', Buffer.alloc(0), { 'grpc-timeout': '0n' }, '4'],
  ] as const) {
    it(`refuses ${what} with status ${status}`, async () => {
      const { headers: received, trailers } = await post(session, `/interop.v1.Greeter/${path}`, body, headers);

      assert.equal(received[':status'], 200);
      assert.equal(trailers['grpc-status'], status);
    });
  }

  it('refuses a content type that is not gRPC with 415', async () => {
    const answer = await post(session, '/interop.v1.Greeter/hello', Buffer.from('{"name":"Ada"}'), {
      'content-type': 'application/json',
    });

    assert.equal(answer.headers[':status'], 415);
    assert.deepEqual(answer.messages, []);
  });

  it('goes on serving after all of that', async () => {
    const { messages } = await post(session, '/interop.v1.Greeter/hello', frame('{"name":"still there"}'));

    assert.deepEqual(messages, [{ greeting: 'Hello still there' }]);
  });
});
