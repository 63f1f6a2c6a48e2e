import assert from 'node:assert/strict';
import type { TLSSocket } from 'node:tls';
import { type GatewayLimits, httpRoute, route } from '@sallyport/gateway';
import { eventually } from '../support/eventually.js';
import { httpUpstream } from '../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import {
  Flag,
  FrameType,
  frame,
  framesIn,
  hello,
  hpack,
  rstStream,
  settings,
  settingsAck,
} from '../support/h2-frames.js';

const SETTINGS_INITIAL_WINDOW_SIZE = 4;
/** One place: whoever keeps it locks everybody else out. */
const ONE = { maxConcurrentRequests: 1, maxQueuedRequests: 1, requestTimeoutMs: 300, streamIdleTimeoutMs: 300 };

const routes = [
  route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true }),
  route('POST', '/v1/orders/:id', Orders.create, { service: 'orders', public: true }),
  route('DELETE', '/v1/orders/:id', Orders.get, { service: 'orders', public: true }),
  route('POST', '/v1/uploads', Orders.upload, { service: 'orders', public: true }),
];

/** A client of HTTP/2 that begins what it does not end. `window`: how much of an answer it takes. */
async function hoarder(world: GatewayWorld, window = 65_535) {
  const socket: TLSSocket = await world.dial({ alpn: 'h2' });
  socket.on('error', () => {});
  let read = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    read = Buffer.concat([read, chunk]);
  });
  socket.write(Buffer.concat([hello(), settings([[SETTINGS_INITIAL_WINDOW_SIZE, window]]), settingsAck()]));
  return {
    begin(method: string, path: string, { type, ends = true }: { type?: string; ends?: boolean } = {}) {
      const fields = [
        [':method', method],
        [':scheme', 'https'],
        [':path', path],
        [':authority', 'shop.test'],
        ...(type === undefined ? [] : [['content-type', type]]),
      ] as [string, string][];
      const flags = Flag.END_HEADERS | (ends ? Flag.END_STREAM : 0);
      socket.write(frame(FrameType.HEADERS, flags, 1, hpack(fields)));
    },
    reset: () => socket.write(rstStream(1, 8)),
    send: (body: string, ends = false) =>
      socket.write(frame(FrameType.DATA, ends ? Flag.END_STREAM : 0, 1, Buffer.from(body))),
    frames: (type: number) => framesIn(read).filter((found) => found.type === type && found.stream === 1),
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

/** Behind a proxy that tells where requests come from, in front of a service that keeps them until it is told to answer. */
async function slowDoor(limits: GatewayLimits) {
  let answer = () => {};
  const told = new Promise<void>((resolve) => {
    answer = resolve;
  });
  let served = 0;
  const get = async ({ id }: { id: string }) => {
    served++;
    await told;
    return { text: id };
  };
  const world = await gatewayWorld({ routes, limits, handlers: { get }, trustedProxies: ['127.0.0.1'] });
  return {
    askFrom: (address: string) => world.ask('GET', '/v1/orders/7', { headers: { 'x-forwarded-for': address } }),
    served: () => served,
    answer,
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  };
}

/** The place is free again: somebody else is served. */
async function othersAreServed(world: GatewayWorld): Promise<void> {
  await eventually(async () => assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200));
}

describe('a client that would keep the place of others', () => {
  it('by taking no answer is cut off when the time of its request is over', async () => {
    await using world = await gatewayWorld({ routes, limits: ONE });
    using client = await hoarder(world, 0);

    client.begin('GET', '/v1/orders/7');
    await eventually(() => assert.equal(client.frames(FrameType.HEADERS).length, 1));

    await othersAreServed(world);
    assert.equal(client.frames(FrameType.RST_STREAM).length, 1);
  });

  it('by asking ahead and leaving leaves its places to others', async () => {
    const releases: (() => void)[] = [];
    const get = async ({ id }: { id: string }) => {
      await new Promise<void>((resolve) => releases.push(resolve));
      return { text: id };
    };
    const limits = { maxConcurrentRequests: 3, maxQueuedRequests: 3 };
    await using world = await gatewayWorld({ routes, limits, handlers: { get } });
    const socket = await world.dial();
    socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n'.repeat(3));
    await eventually(() => assert.equal(releases.length, 3));

    socket.destroy();
    for (const release of releases) release();

    const asked = Promise.all([1, 2, 3].map(() => world.ask('GET', '/v1/orders/7')));
    await eventually(() => assert.equal(releases.length, 6));
    for (const release of releases) release();
    assert.deepEqual(
      (await asked).map(({ status }) => status),
      [200, 200, 200],
    );
  });

  it('by slow requests on many connections gets its share of the places, and leaves the others', async () => {
    await using door = await slowDoor({ maxConcurrentRequests: 3, maxRequestsPerAddress: 2 });

    const asked = [1, 2, 3].map(() => door.askFrom('192.0.2.1'));
    const refused = await Promise.race(asked);
    const other = door.askFrom('192.0.2.2');
    await eventually(() => assert.equal(door.served(), 3));
    door.answer();

    assert.deepEqual([refused.status, refused.code, refused.headers['retry-after']], [429, 'too-many-requests', '1']);
    assert.deepEqual((await Promise.all(asked)).map(({ status }) => status).sort(), [200, 200, 429]);
    assert.equal((await other).status, 200);
    assert.equal((await door.askFrom('192.0.2.1')).status, 200);
  });

  it('by requests that wait gets its share of the queue, with all addresses of its network', async () => {
    await using door = await slowDoor({ maxConcurrentRequests: 1, maxQueuedRequests: 2, maxRequestsPerAddress: 1 });

    const first = door.askFrom('192.0.2.1');
    await eventually(() => assert.equal(door.served(), 1));
    const asked = [door.askFrom('2001:db8::1'), door.askFrom('2001:db8::2')];
    const refused = await Promise.race(asked);
    const other = door.askFrom('2001:db8:0:1::1');
    door.answer();

    assert.deepEqual([refused.status, refused.code], [429, 'too-many-requests']);
    assert.deepEqual((await Promise.all(asked)).map(({ status }) => status).sort(), [200, 429]);
    assert.deepEqual([(await first).status, (await other).status], [200, 200]);
  });

  it('by asking for more at once than a connection may is cut off', async () => {
    await using world = await gatewayWorld({ routes, limits: { maxStreamsPerConnection: 5 } });
    const socket = await world.dial();
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.resume().once('close', resolve));

    socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n'.repeat(6));
    await closed;

    assert.equal(world.events('request-refused')[0]?.code, 'pipelined-too-far');
    await othersAreServed(world);
  });

  it('by taking no refusal is cut off too', async () => {
    await using world = await gatewayWorld({ routes, limits: { ...ONE, headersTimeoutMs: 300 } });
    using client = await hoarder(world, 0);

    client.begin('GET', '/v1/%2e%2e');

    await eventually(() => assert.equal(client.frames(FrameType.RST_STREAM).length, 1));
    await othersAreServed(world);
  });

  it('by a body of DELETE without an end is told 408', async () => {
    await using world = await gatewayWorld({ routes, limits: { ...ONE, requestTimeoutMs: 5000, bodyTimeoutMs: 200 } });
    using client = await hoarder(world);

    client.begin('DELETE', '/v1/orders/7', { type: 'application/json', ends: false });
    await eventually(() => assert.equal(client.frames(FrameType.RST_STREAM).length, 1));

    assert.deepEqual(
      world.events('request-refused').map(({ code }) => code),
      ['request-timeout'],
    );
    await othersAreServed(world);
  });

  it('by a body that goes on after it was too large is told 413, and no more is read', async () => {
    await using world = await gatewayWorld({ routes, limits: { ...ONE, requestTimeoutMs: 5000, maxBodyBytes: 1000 } });
    using client = await hoarder(world);

    client.begin('POST', '/v1/orders/7', { type: 'application/json', ends: false });
    client.send(' '.repeat(2000));
    await eventually(() => assert.equal(client.frames(FrameType.RST_STREAM).length, 1));

    assert.deepEqual(
      world.events('request-refused').map(({ code }) => code),
      ['body-too-large'],
    );
    await othersAreServed(world);
  });

  it('by not taking the answer to a stream of its own is cut off', async () => {
    await using world = await gatewayWorld({ routes, limits: ONE });
    using client = await hoarder(world, 0);

    client.begin('POST', '/v1/uploads', { type: 'application/x-ndjson', ends: false });
    client.send('{"id":"a","n":1}\n', true);
    await eventually(() => assert.equal(client.frames(FrameType.HEADERS).length, 1));

    await othersAreServed(world);
  });

  it('by not taking the answer of an HTTP service is cut off', async () => {
    const files = httpRoute('GET', '/files', { upstream: 'files', public: true });
    await using world = await gatewayWorld({ routes: [...routes, files], limits: ONE });
    await using upstream = await httpUpstream(world.mesh, (_request, response) => void response.end('text'));
    using client = await hoarder(world, 0);
    assert.ok(upstream.port > 0);

    client.begin('GET', '/files');
    await eventually(() => assert.equal(client.frames(FrameType.HEADERS).length, 1));

    await othersAreServed(world);
  });

  it('by breaking off a body on HTTP/2 has asked for nothing', async () => {
    let ends = 0;
    const upload = async (messages: AsyncIterable<{ n: number }>) => {
      for await (const { n } of messages) assert.equal(n, 1);
      ends++;
      return { sum: 1 };
    };
    await using world = await gatewayWorld({ routes, handlers: { upload } });
    const bodies = [
      { path: '/v1/orders/7', type: 'application/json', body: '{"text":"a"}' },
      { path: '/v1/uploads', type: 'application/x-ndjson', body: '{"id":"a","n":1}\n' },
    ];
    for (const [index, { path, type, body }] of bodies.entries()) {
      using client = await hoarder(world);
      client.begin('POST', path, { type, ends: false });
      client.send(body);
      client.reset();
      await eventually(() => assert.equal(world.events('request-refused').length, index + 1));
    }

    assert.deepEqual([world.handled.length, ends], [0, 0]);
    await othersAreServed(world);
  });

  it('by saying nothing does not make a service seem down', async () => {
    const timed = { service: 'orders', public: true, timeoutMs: 100 } as const;
    await using world = await gatewayWorld({
      routes: [...routes, route('GET', '/chat', Orders.chat, timed), route('POST', '/slow', Orders.upload, timed)],
      breaker: { failures: 1 },
    });
    const ask = async (...lines: string[]) => {
      const socket = await world.dial();
      socket.on('error', () => {});
      const answered = new Promise((resolve) => socket.once('data', resolve));
      socket.write([...lines, 'Host: shop.test', '', ''].join('\r\n'));
      await answered;
    };

    const handshake = ['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='];
    await ask('GET /chat HTTP/1.1', 'Connection: Upgrade', 'Upgrade: websocket', ...handshake);
    await ask('POST /slow HTTP/1.1', 'Content-Type: application/x-ndjson', 'Transfer-Encoding: chunked');
    await eventually(() => assert.equal(world.events('request-refused').length, 2));

    assert.deepEqual(world.events('breaker-state'), []);
    assert.deepEqual(
      world.events('request-refused').map(({ code }) => code),
      ['timeout', 'timeout'],
    );
    await othersAreServed(world);
  });
});
