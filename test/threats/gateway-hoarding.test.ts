import assert from 'node:assert/strict';
import type { TLSSocket } from 'node:tls';
import { httpRoute, route } from '@sallyport/gateway';
import { eventually } from '../support/eventually.js';
import { httpUpstream } from '../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { Flag, FrameType, frame, framesIn, hello, hpack, settings, settingsAck } from '../support/h2-frames.js';

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
    send: (body: string, ends = false) =>
      socket.write(frame(FrameType.DATA, ends ? Flag.END_STREAM : 0, 1, Buffer.from(body))),
    frames: (type: number) => framesIn(read).filter((found) => found.type === type && found.stream === 1),
    [Symbol.dispose]: () => void socket.destroy(),
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
});
