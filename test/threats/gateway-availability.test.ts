import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { CallError } from '@sallyport/core';
import { route } from '@sallyport/gateway';
import { eventually } from '../support/eventually.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { Flag, FrameType, frame, framesIn, hello, hpack, settingsAck } from '../support/h2-frames.js';
import { contextOf } from '../support/registry-context.js';

const open = [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true, timeoutMs: 500 })];

describe('a gateway whose clients or services misbehave', () => {
  it('T57 ends a body that comes too slowly with 408 on HTTP/1.1, and serves on', async () => {
    await using world = await gatewayWorld({ limits: { bodyTimeoutMs: 300, headersTimeoutMs: 300 } });
    const socket = await world.dial();
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    const closed = new Promise((resolve) => socket.on('close', resolve));

    socket.write(
      'POST /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
    );
    await closed;

    assert.match(answer, /^HTTP\/1\.1 408 /);
    assert.equal(world.handled.length, 0);
    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
  });

  it('T57 ends a body that comes too slowly on HTTP/2, and serves on', async () => {
    await using world = await gatewayWorld({ limits: { bodyTimeoutMs: 300 } });
    const session = connectHttp2(`https://127.0.0.1:${world.port}`, { ca: world.ca, servername: 'shop.test' });
    session.on('error', () => {});
    const stream = session.request({
      ':method': 'POST',
      ':path': '/v1/orders/7',
      ':authority': 'shop.test',
      'content-type': 'application/json',
    });
    stream.on('error', () => {});
    let status: unknown;
    stream.on('response', (headers) => {
      status = headers[':status'];
    });
    stream.resume();
    stream.write('{');

    await eventually(() => assert.equal(status, 408));
    // Node's client keeps its half open for a reset without an error; HTTP/2 itself knows better.
    await eventually(() => assert.ok([undefined, constants.NGHTTP2_STREAM_STATE_CLOSED].includes(stream.state.state)));
    session.close();
    assert.equal(world.handled.length, 0);
    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
  });

  it('T57 ends headers that come too slowly', async () => {
    await using world = await gatewayWorld({ limits: { headersTimeoutMs: 300 } });
    const socket = await world.dial();
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    const closed = new Promise((resolve) => socket.on('close', resolve));

    socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.te');
    await closed;

    assert.match(answer, /^HTTP\/1\.1 408 /);
  });

  it('T57 takes no more connections from one address than it may have', async () => {
    await using world = await gatewayWorld({ limits: { maxConnectionsPerAddress: 2 } });
    const [first, second] = [await world.dial(), await world.dial()];

    await assert.rejects(world.dial());

    const refused = world.events('handshake-refused').map(({ reason }) => reason);
    assert.ok(refused.includes('too-many-connections'), String(refused));
    first.destroy();
    second.destroy();
    await eventually(async () => assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200));
  });

  it('T57 takes no more connections in all than it may have', async () => {
    await using world = await gatewayWorld({ limits: { maxConnections: 2 } });
    const [first, second] = [await world.dial(), await world.dial()];

    await assert.rejects(world.dial());

    const refused = world.events('handshake-refused').map(({ reason }) => reason);
    assert.deepEqual(new Set(refused), new Set(['too-many-connections']));
    first.destroy();
    second.destroy();
    await eventually(async () => assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200));
  });

  it('T57 serves no more requests of one HTTP/2 connection at once than it may have, and the next when one is over', async () => {
    const releases: (() => void)[] = [];
    await using world = await gatewayWorld({
      limits: { maxStreamsPerConnection: 3 },
      handlers: { get: ({ id }) => new Promise((resolve) => releases.push(() => resolve({ text: id }))) },
    });
    using hasty = await http2Peer(world);

    // At once: it cannot know how many it may have. RFC 9113 section 5.1.2: refused, and nothing was done.
    hasty.get(1, 3, 5, 7, 9);
    await eventually(() =>
      assert.deepEqual(
        hasty
          .resets()
          .map(([stream]) => stream)
          .sort(),
        [7, 9],
      ),
    );
    await eventually(() => assert.equal(releases.length, 3));
    for (const release of releases) release();
    await eventually(() => assert.deepEqual(hasty.answered(), [1, 3, 5]));
    hasty.get(11);
    await eventually(() => assert.equal(releases.length, 4));
    releases.at(-1)?.();

    await eventually(() => assert.deepEqual(hasty.answered(), [1, 3, 5, 11]));
    for (const [, code] of hasty.resets()) assert.equal(code, constants.NGHTTP2_REFUSED_STREAM);
  });

  it('T57 ends an HTTP/2 connection that asks for more than it was told, and cancels what it has asked for', async () => {
    let waiting = 0;
    let cancelled = 0;
    await using world = await gatewayWorld({
      limits: { maxStreamsPerConnection: 3 },
      handlers: {
        async get({ id }, { signal }) {
          if (id === '8') return { text: id };
          waiting++;
          await once(signal, 'abort');
          cancelled++;
          throw new CallError('CANCELLED', 'nobody waits');
        },
      },
    });
    using greedy = await http2Peer(world);
    greedy.acknowledge();
    greedy.get(1, 3, 5);
    await eventually(() => assert.equal(waiting, 3));
    greedy.get(7);

    await greedy.closed;
    await eventually(() => assert.equal(cancelled, 3));
    assert.deepEqual(greedy.answered(), []);
    assert.equal((await world.ask('GET', '/v1/orders/8')).status, 200);
  });

  it('T57 ends a request whose time is over, also while it waits for its turn, and gives its place to the next', async () => {
    let answers = false;
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true })],
      limits: { maxConcurrentRequests: 1, requestTimeoutMs: 400 },
      handlers: { get: ({ id }) => (answers ? { text: id } : new Promise(() => {})) },
    });

    const [running, waiting] = await Promise.all([world.ask('GET', '/v1/orders/1'), world.ask('GET', '/v1/orders/2')]);
    answers = true;
    const next = await world.ask('GET', '/v1/orders/3');

    for (const { status, code } of [running, waiting]) assert.deepEqual([status, code], [504, 'timeout']);
    assert.equal(next.status, 200);
    assert.deepEqual(
      world.events('request-refused').map(({ code }) => code),
      ['timeout', 'timeout'],
    );
    assert.equal(world.handled.length, 0);
  });

  it('lets a stream that has begun go on beyond the time of a request', async () => {
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id/watch', Orders.watch, { service: 'orders', public: true })],
      limits: { requestTimeoutMs: 300 },
      handlers: {
        async *watch() {
          for (let n = 0; n < 4; n++) {
            yield { n, text: '' };
            await new Promise((resolve) => setTimeout(resolve, 200));
          }
        },
      },
    });

    const { status, body } = await world.ask('GET', '/v1/orders/1/watch');

    assert.equal(status, 200);
    assert.equal(body.trim().split('\n').length, 4, body);
    assert.doesNotMatch(body, /error/);
  });

  it('T61 answers 503 when the service is down, without a word of what is behind', async () => {
    await using world = await gatewayWorld({ routes: open });
    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);

    await world.mesh.stop();
    const answer = await world.ask('GET', '/v1/orders/7');

    assert.deepEqual([answer.status, answer.code], [503, 'upstream-unavailable']);
    assert.doesNotMatch(answer.body, /orders|127\.0\.0\.1|spiffe|registry/);
    const [event] = world.events('request-refused');
    assert.equal(event?.code, 'upstream-unavailable');
    assert.match(String(event?.detail), /UNAVAILABLE/);
  });

  it('T61 answers 504 when the service is slow', async () => {
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true, timeoutMs: 200 })],
      handlers: { get: () => new Promise(() => {}) },
    });

    const answer = await world.ask('GET', '/v1/orders/7');

    assert.deepEqual([answer.status, answer.code], [504, 'upstream-timeout']);
  });

  it('T61 answers 502 when somebody else answers for the service', async () => {
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/bills/:id', Orders.get, { service: 'billing', public: true })],
    });
    const session = await world.mesh.registry.open(contextOf('billing'));
    const [orders] = await session.list('orders');
    assert.ok(orders);
    await session.register({ ...orders, id: 'billing-poisoned', service: 'billing' });

    const answer = await world.ask('GET', '/v1/bills/7');

    assert.deepEqual([answer.status, answer.code], [502, 'upstream-refused']);
    assert.doesNotMatch(answer.body, /orders|127\.0\.0\.1|spiffe/);
    assert.equal(world.events('server-identity-refused')[0]?.presented, world.mesh.id('orders'));
    assert.equal(world.handled.length, 0);
    await session.close();
  });

  it('tells a client what a service says to it, and nothing of what failed inside', async () => {
    await using world = await gatewayWorld({
      routes: open,
      handlers: {
        get({ id }) {
          if (id === 'gone') throw new CallError('NOT_FOUND', 'order gone was deleted');
          if (id === 'denied') throw new CallError('PERMISSION_DENIED', 'rule internal-7');
          throw new Error(`password=hunter2 ${id}`);
        },
      },
    });

    const [gone, denied, broken] = await Promise.all(
      ['gone', 'denied', 'broken'].map((id) => world.ask('GET', `/v1/orders/${id}`)),
    );

    assert.deepEqual([gone?.status, denied?.status, broken?.status], [404, 403, 500]);
    assert.match(gone?.body ?? '', /order gone was deleted/);
    assert.doesNotMatch(`${denied?.body}${broken?.body}`, /internal-7|hunter2|password/);
  });
});

/** A client of HTTP/2 that asks for as much as it likes. */
async function http2Peer(world: GatewayWorld) {
  const socket = await world.dial({ alpn: 'h2' });
  socket.on('error', () => {});
  let read = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    read = Buffer.concat([read, chunk]);
  });
  socket.write(hello());
  const frames = () => framesIn(read);
  const fields = { ':method': 'GET', ':scheme': 'https', ':path': '/v1/orders/7', ':authority': 'shop.test' };
  const block = hpack(Object.entries(fields));
  return {
    closed: once(socket, 'close'),
    /** Says that it knows what the gateway allows. */
    acknowledge: () => socket.write(settingsAck()),
    /** Asks on all of these streams at once. */
    get(...streams: number[]) {
      const flags = Flag.END_HEADERS | Flag.END_STREAM;
      socket.write(Buffer.concat(streams.map((stream) => frame(FrameType.HEADERS, flags, stream, block))));
    },
    /** Streams that were reset, and why. */
    resets: () =>
      frames()
        .filter(({ type }) => type === FrameType.RST_STREAM)
        .map(({ stream, payload }) => [stream, payload.readUInt32BE()]),
    /** Streams whose answer has ended. */
    answered: () =>
      frames()
        .filter(({ type, flags }) => type === FrameType.DATA && (flags & Flag.END_STREAM) !== 0)
        .map(({ stream }) => stream)
        .sort((a, b) => a - b),
    [Symbol.dispose]: () => void socket.destroy(),
  };
}
