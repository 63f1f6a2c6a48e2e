import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { allow, Status } from '@sallyport/core';
import type { ServedMethod } from '@sallyport/core/spi';
import { mesh } from '@sallyport/testing';
import {
  decodeFields,
  ErrorCode,
  encodeFields,
  FAST_PROTOCOL,
  type Fields,
  FloodGuard,
  fastServerLane,
  readResponse,
  requestFields,
} from '@sallyport/transport-mtls/spi';
import { MemorySocket } from '../../../fuzz/memory-socket.js';
import { identity, serverLimits } from '../../../fuzz/subjects.js';
import { Echo, type EchoWorld, echoWorld } from '../../../support/echo.js';
import { eventually } from '../../../support/eventually.js';
import {
  Flag,
  FrameType,
  frame,
  grpcMessage,
  hello,
  ping,
  rstStream,
  settings,
  windowUpdate,
} from '../../../support/h2-frames.js';
import { type RawPeer, rawPeer } from '../../../support/raw-peer.js';

const SAY = '/test.echo.v1.Echo/say';
const DOWNLOAD = '/test.echo.v1.Echo/download';
const UPLOAD = '/test.echo.v1.Echo/upload';
const hi = grpcMessage(Buffer.from('{"text":"hi"}'));

function headers(
  stream: number,
  fields: Fields = requestFields(SAY, 10_000),
  flags: number = Flag.END_HEADERS,
): Buffer {
  return frame(FrameType.HEADERS, flags, stream, encodeFields(fields));
}

function data(stream: number, payload: Uint8Array, flags = 0): Buffer {
  return frame(FrameType.DATA, flags, stream, payload);
}

function say(stream: number): Buffer {
  return Buffer.concat([headers(stream), data(stream, hi, Flag.END_STREAM)]);
}

function raw(world: EchoWorld, options: Parameters<typeof rawPeer>[2] = {}): Promise<RawPeer> {
  return rawPeer(world.mesh, world.service, { alpn: FAST_PROTOCOL, ...options });
}

/** The code of the GOAWAY that ended the connection. */
function lastWords(peer: RawPeer): number | undefined {
  return peer
    .frames()
    .filter(({ type }) => type === FrameType.GOAWAY)
    .at(-1)
    ?.payload.readUInt32BE(4);
}

/** grpc-status of the stream's trailers; undefined while there are none. */
function statusOf(peer: RawPeer, stream: number): number | undefined {
  const last = peer
    .frames()
    .filter((one) => one.type === FrameType.HEADERS && one.stream === stream)
    .at(-1);
  return last && readResponse(decodeFields(last.payload, 0, last.payload.length)).status;
}

function resetOf(peer: RawPeer, stream: number): number | undefined {
  return peer
    .frames()
    .find((one) => one.type === FrameType.RST_STREAM && one.stream === stream)
    ?.payload.readUInt32BE(0);
}

/** A method whose calls last until they are ended. */
const gather: ServedMethod = {
  path: '/a.B/gather',
  requestStream: true,
  responseStream: false,
  refusal: () => undefined,
  serve() {},
};

describe('a connection of the fast lane', () => {
  const { PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, STREAM_CLOSED, COMPRESSION_ERROR } = ErrorCode;

  const refused: [what: string, code: number, bytes: Buffer][] = [
    ['an even stream', PROTOCOL_ERROR, headers(2)],
    ['a stream that was over', PROTOCOL_ERROR, Buffer.concat([say(3), headers(3)])],
    ['a stream below the last one', PROTOCOL_ERROR, Buffer.concat([say(5), headers(3)])],
    ['trailers of a request', PROTOCOL_ERROR, Buffer.concat([headers(1), headers(1)])],
    [
      'HEADERS after END_STREAM',
      STREAM_CLOSED,
      Buffer.concat([headers(1, requestFields(UPLOAD, 1000), 5), headers(1)]),
    ],
    ['DATA after END_STREAM', STREAM_CLOSED, Buffer.concat([headers(1, requestFields(UPLOAD, 1000), 5), data(1, hi)])],
    ['DATA on an idle stream', PROTOCOL_ERROR, data(7, hi)],
    ['RST_STREAM on an idle stream', PROTOCOL_ERROR, rstStream(7)],
    ['WINDOW_UPDATE on an idle stream', PROTOCOL_ERROR, windowUpdate(7, 1)],
    ['WINDOW_UPDATE of zero', PROTOCOL_ERROR, windowUpdate(0, 0)],
    ['WINDOW_UPDATE of zero on a stream', PROTOCOL_ERROR, Buffer.concat([headers(1), windowUpdate(1, 0)])],
    ['a window beyond 2^31-1', FLOW_CONTROL_ERROR, windowUpdate(0, 0x7fff_ffff)],
    ['a stream window beyond 2^31-1', FLOW_CONTROL_ERROR, Buffer.concat([headers(1), windowUpdate(1, 0x7fff_ffff)])],
    [
      'END_STREAM in the midst of a message',
      PROTOCOL_ERROR,
      Buffer.concat([headers(1), data(1, hi.subarray(0, 9), 1)]),
    ],
    ['a header block that is none', COMPRESSION_ERROR, frame(FrameType.HEADERS, Flag.END_HEADERS, 1, Buffer.of(0xff))],
    ['headers without a path', PROTOCOL_ERROR, headers(1, [':method', 'POST'])],
    ['an initial window beyond 2^31-1', FLOW_CONTROL_ERROR, settings([[4, 0x8000_0000]])],
    ['ENABLE_PUSH of 2', PROTOCOL_ERROR, settings([[2, 2]])],
    ['a MAX_FRAME_SIZE that is too small', PROTOCOL_ERROR, settings([[5, 16_383]])],
    ['a frame type outside of the profile', PROTOCOL_ERROR, frame(0x2, 0, 1, Buffer.alloc(5))],
    ['PING of the wrong size', FRAME_SIZE_ERROR, frame(FrameType.PING, 0, 0, Buffer.alloc(7))],
  ];
  for (const [what, code, bytes] of refused) {
    it(`ends with ${what}, says why, and others are served on`, async () => {
      await using world = await echoWorld();
      using peer = await raw(world);

      await peer.write(bytes);

      await eventually(() => assert.ok(peer.isClosed));
      assert.equal(lastWords(peer), code);
      await eventually(() => {
        const closed = world.events('connection-closed-by-policy');
        assert.deepEqual(
          closed.map((event) => [event.peer, event.reason]),
          [[world.mesh.id('raw'), 'abuse']],
        );
      });
      await world.client.say({ text: 'still here' });
    });
  }

  it('ends when it begins with anything but the preface and SETTINGS', async () => {
    await using world = await echoWorld();
    for (const greeting of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.concat([hello().subarray(0, 24), ping()])]) {
      using peer = await raw(world, { greet: false });

      await peer.write(greeting);

      await eventually(() => assert.ok(peer.isClosed));
      assert.equal(lastWords(peer), PROTOCOL_ERROR);
    }
  });

  it('ends when it says nothing at all', async () => {
    await using world = await echoWorld({ server: { limits: { handshakeTimeoutMs: 200 } } });
    using peer = await raw(world, { greet: false });

    await eventually(() => assert.ok(peer.isClosed));

    assert.equal(lastWords(peer), ErrorCode.SETTINGS_TIMEOUT);
  });

  it('serves a call that comes byte by byte', async () => {
    await using world = await echoWorld();
    using peer = await raw(world, { greet: false });

    for (const byte of Buffer.concat([hello(), say(1)])) await peer.write(Buffer.of(byte));

    await eventually(() => assert.equal(statusOf(peer, 1), Status.OK));
  });

  const answered: [what: string, status: number, bytes: Buffer][] = [
    [
      'an unknown method',
      Status.UNIMPLEMENTED,
      Buffer.concat([headers(1, requestFields('/a.B/c', 1000)), data(1, hi, 1)]),
    ],
    ['a compressed call', Status.UNIMPLEMENTED, headers(1, [...requestFields(SAY, 1000), 'grpc-encoding', 'gzip'])],
    [
      'a compressed message',
      Status.INTERNAL,
      Buffer.concat([headers(1), data(1, grpcMessage(Buffer.from('a'), true))]),
    ],
    [
      'a message beyond the limit',
      Status.RESOURCE_EXHAUSTED,
      Buffer.concat([headers(1), data(1, Buffer.from('007fffffff', 'hex'))]),
    ],
    ['a call without a request', Status.INVALID_ARGUMENT, headers(1, requestFields(SAY, 1000), 5)],
    [
      'two requests where one is due',
      Status.INVALID_ARGUMENT,
      Buffer.concat([headers(1), data(1, hi), data(1, hi, 1)]),
    ],
    ['a deadline that has passed', Status.DEADLINE_EXCEEDED, headers(1, requestFields(SAY, 1))],
    [
      '101 entries of metadata',
      Status.RESOURCE_EXHAUSTED,
      headers(1, [...requestFields(SAY, 1000), ...Array.from({ length: 202 }, (_, i) => (i % 2 ? 'v' : 'k'))]),
    ],
  ];
  for (const [what, status, bytes] of answered) {
    it(`answers ${what} with status ${status}, and stays`, async () => {
      await using world = await echoWorld();
      using peer = await raw(world);

      await peer.write(bytes);
      await eventually(() => assert.equal(statusOf(peer, 1), status));
      await peer.write(say(3));

      await eventually(() => assert.equal(statusOf(peer, 3), Status.OK));
    });
  }

  it('refuses calls beyond its limit with REFUSED_STREAM, and takes them again afterwards', async () => {
    await using world = await echoWorld({ server: { limits: { maxConcurrentCalls: 2 } } });
    using peer = await raw(world);

    await peer.write(Buffer.concat([headers(1), headers(3), headers(5)]));
    await eventually(() => assert.equal(resetOf(peer, 5), ErrorCode.REFUSED_STREAM));
    await peer.write(Buffer.concat([data(1, hi, 1), data(3, hi, 1), say(7)]));

    await eventually(() => assert.equal(statusOf(peer, 7), Status.OK));
  });

  it('tells a caller that still speaks to stop, once it has answered', async () => {
    await using world = await echoWorld();
    using peer = await raw(world);

    await peer.write(headers(1, requestFields('/a.B/c', 1000)));

    await eventually(() => assert.equal(resetOf(peer, 1), ErrorCode.NO_ERROR));
  });

  it('ends a request that never becomes whole, though it names no deadline', async () => {
    await using world = await echoWorld({ server: { limits: { unaryDeadlineMs: 50 } } });
    using peer = await raw(world);
    const endless = requestFields(SAY, 1).slice(0, -2);

    await peer.write(Buffer.concat([headers(1, endless), data(1, hi.subarray(0, 7))]));

    await eventually(() => assert.equal(statusOf(peer, 1), Status.DEADLINE_EXCEEDED));
  });

  it('never sends more than the windows of the peer allow, and goes on when they do', async () => {
    await using world = await echoWorld();
    using peer = await raw(world, { greet: false });
    const request = grpcMessage(Buffer.from('{"messages":3,"length":1000}'));
    const sent = () =>
      peer.frames().reduce((sum, { type, payload }) => sum + (type === FrameType.DATA ? payload.length : 0), 0);
    await peer.write(Buffer.concat([hello().subarray(0, 24), settings([[4, 100]])]));

    await peer.write(Buffer.concat([headers(1, requestFields(DOWNLOAD, 5000)), data(1, request, 1)]));
    await eventually(() => assert.equal(sent(), 100));
    await peer.write(windowUpdate(1, 50));
    await eventually(() => assert.equal(sent(), 150));
    await peer.write(settings([[4, 500]]));
    await eventually(() => assert.equal(sent(), 550));
    await peer.write(windowUpdate(1, 100_000));

    await eventually(() => assert.equal(statusOf(peer, 1), Status.OK));
  });

  it('grants no more than a stream may hold while its handler waits, and ends when that is exceeded', async () => {
    await using world = await echoWorld();
    using peer = await raw(world, { greet: false });
    const message = grpcMessage(Buffer.from(JSON.stringify({ text: 'x'.repeat(60_000) })));
    const granted = () =>
      peer
        .frames()
        .filter(({ type, stream }) => type === FrameType.WINDOW_UPDATE && stream === 1)
        .reduce((sum, { payload }) => sum + payload.readUInt32BE(0), 0);
    // The handler answers each message before it reads the next; the first answer finds no window.
    await peer.write(Buffer.concat([hello().subarray(0, 24), settings([[4, 0]])]));

    await peer.write(headers(1, requestFields('/test.echo.v1.Echo/chat', 60_000)));
    for (let i = 0; i < 40 && !peer.isClosed; i++) await peer.write(data(1, message));

    await eventually(() => assert.ok(peer.isClosed));
    assert.equal(lastWords(peer), FLOW_CONTROL_ERROR);
    assert.ok(granted() <= 1024 * 1024 + message.length, `${granted()} bytes`);
  });

  it('lets no more handlers run than twice its limit, those of cancelled calls among them', async () => {
    const world = mesh({ lanes: ['fast'] });
    await using _ = { [Symbol.asyncDispose]: () => world.stop() };
    let running = 0;
    let most = 0;
    const service = world.service('echo', {
      authorize: [allow({ from: world.id('raw'), to: 'test.echo.v1.Echo/*' })],
      server: { limits: { maxConcurrentCalls: 10 } },
    });
    service.handle(Echo, {
      async say(request) {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 50));
        running--;
        return request;
      },
      upload: () => ({ messages: 0, length: 0 }),
      async *download() {},
      async *chat() {},
    });
    await world.start();
    using peer = await rawPeer(world, service, { alpn: FAST_PROTOCOL });

    for (let stream = 1; stream < 400; stream += 2) {
      await peer.write(Buffer.concat([say(stream), rstStream(stream, ErrorCode.CANCEL)]));
    }
    await eventually(() => assert.equal(running, 0));
    await peer.write(say(401));

    await eventually(() => assert.equal(statusOf(peer, 401), Status.OK));
    assert.equal(most, 20);
  });

  it('drops an answer whose window is never granted when the deadline passes', async () => {
    await using world = await echoWorld();
    using peer = await raw(world, { greet: false });
    await peer.write(Buffer.concat([hello().subarray(0, 24), settings([[4, 0]])]));

    await peer.write(Buffer.concat([headers(1, requestFields(SAY, 100)), data(1, hi, 1)]));

    await eventually(() => assert.equal(resetOf(peer, 1), ErrorCode.CANCEL));
  });

  it('drops a stream of answers whose window is never granted some time after its deadline', async () => {
    await using world = await echoWorld({ server: { limits: { maxConcurrentCalls: 1, unaryDeadlineMs: 200 } } });
    using peer = await raw(world, { greet: false });
    const request = grpcMessage(Buffer.from('{"messages":3,"length":1000}'));
    await peer.write(Buffer.concat([hello().subarray(0, 24), settings([[4, 0]])]));

    await peer.write(Buffer.concat([headers(1, requestFields(DOWNLOAD, 100)), data(1, request, Flag.END_STREAM)]));
    await eventually(() => assert.equal(resetOf(peer, 1), ErrorCode.CANCEL));
    await peer.write(Buffer.concat([settings([[4, 1000]]), say(3)]));

    await eventually(() => assert.equal(statusOf(peer, 3), Status.OK));
  });

  it('tells of a deadline that passed while answers waited when they can leave after all', async () => {
    await using world = await echoWorld();
    using peer = await raw(world, { greet: false });
    const request = grpcMessage(Buffer.from('{"messages":3,"length":1000}'));
    await peer.write(Buffer.concat([hello().subarray(0, 24), settings([[4, 0]])]));

    await peer.write(Buffer.concat([headers(1, requestFields(DOWNLOAD, 50)), data(1, request, Flag.END_STREAM)]));
    await pause(200);
    await peer.write(windowUpdate(1, 100_000));

    await eventually(() => assert.equal(statusOf(peer, 1), Status.DEADLINE_EXCEEDED));
  });

  it('gives a call that crosses the GOAWAY of an idle server the time that it needs', async () => {
    await using world = await echoWorld({ server: { limits: { idleTimeoutMs: 50 } } });
    using peer = await raw(world);
    await eventually(() => assert.equal(lastWords(peer), ErrorCode.NO_ERROR));

    await peer.write(headers(1, requestFields(UPLOAD, 10_000)));
    await pause(1300);
    await peer.write(data(1, hi, Flag.END_STREAM));

    await eventually(() => assert.equal(statusOf(peer, 1), Status.OK));
    await eventually(() => assert.ok(peer.isClosed));
  });

  it('ends within the shortest grace that it was given', async () => {
    const socket = new MemorySocket();
    const peer = { identity, guard: new FloodGuard(serverLimits.maxMessageBytes) };
    const lane = fastServerLane({ methods: [gather], events: { emit() {} } }, serverLimits);
    const connection = lane.accept(socket.socket, peer);
    socket.arrive(Buffer.concat([hello(), headers(1, requestFields(gather.path, 60_000))]));

    connection.drain(60_000);
    connection.drain(50);
    connection.drain(60_000);

    await eventually(() => assert.ok(socket.ended));
    socket.settle();
    lane.close();
  });

  const floods: [what: string, bytes: (i: number) => Buffer][] = [
    ['PING', () => ping()],
    ['SETTINGS', () => settings()],
    ['WINDOW_UPDATE', () => windowUpdate(0, 1)],
    ['WINDOW_UPDATE for streams that are over', () => windowUpdate(1, 1)],
    ['empty DATA', () => data(3, Buffer.alloc(0))],
    ['DATA in crumbs', () => data(3, Buffer.alloc(1, 0))],
    ['calls that are reset at once', (i) => Buffer.concat([headers(5 + 2 * i), rstStream(5 + 2 * i, 8)])],
  ];
  for (const [what, bytes] of floods) {
    it(`ends with ENHANCE_YOUR_CALM in a flood of ${what}`, async () => {
      await using world = await echoWorld();
      using peer = await raw(world);
      await peer.write(Buffer.concat([say(1), headers(3, requestFields(UPLOAD, 60_000))]));

      for (let sent = 0; sent < 40_000 && !peer.isClosed; sent += 500) {
        await peer.write(Buffer.concat(Array.from({ length: 500 }, (_, i) => bytes(sent + i))));
      }

      await eventually(() => assert.ok(peer.isClosed));
      await eventually(() => assert.equal(world.events('connection-closed-by-policy').length, 1));
      assert.equal(lastWords(peer), ErrorCode.ENHANCE_YOUR_CALM);
      await world.client.say({ text: 'still here' });
    });
  }
});
