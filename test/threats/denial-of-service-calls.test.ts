import assert from 'node:assert/strict';
import { connect, constants, type OutgoingHttpHeaders } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { Status } from '@sallyport/core';
import { decodeFields } from '@sallyport/transport-mtls/spi';
import { type EchoWorld, echoWorld } from '../support/echo.js';
import { eventually } from '../support/eventually.js';
import { callFields, Flag, FrameType, frame, grpcMessage, hpack } from '../support/h2-frames.js';
import { forEachLane, type Lane } from '../support/lanes.js';
import { rawPeer } from '../support/raw-peer.js';
import { whileCalling } from '../support/steady-caller.js';

const KB = 1024;
const MB = 1024 * KB;

interface Answer {
  /** Code of the stream's end, HTTP/2's. */
  readonly rst: number;
  readonly grpcStatus: number | undefined;
}

type Method = 'say' | 'upload';

/** Makes calls that no SDK would, on a connection of `raw`. */
interface RudeCaller extends AsyncDisposable {
  call(method: Method, body: Uint8Array, headers?: OutgoingHttpHeaders): Promise<Answer>;
  /** A call that never ends. */
  begin(method: Method, body: Uint8Array): void;
}

async function rudeCaller(lane: Lane, world: EchoWorld): Promise<RudeCaller> {
  return lane.name === 'grpc' ? await http2Caller(world) : await frameCaller(world);
}

/** Node's own HTTP/2 client. */
async function http2Caller(world: EchoWorld): Promise<RudeCaller> {
  const { socket } = await rawPeer(world.mesh, world.service, { greet: false, keep: false });
  socket.removeAllListeners('data');
  const session = connect('https://sallyport.internal', {
    createConnection: () => socket,
    maxSendHeaderBlockLength: MB,
  });
  session.on('error', () => {});
  const request = (method: Method, headers: OutgoingHttpHeaders = {}) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': `/test.echo.v1.Echo/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    return stream.on('error', () => {});
  };
  return {
    begin: (method, body) => void request(method).write(body),
    call: (method, body, headers) =>
      new Promise((resolve) => {
        const stream = request(method, headers);
        let grpcStatus: number | undefined;
        const look = (got: Record<string, unknown>) => {
          if (got['grpc-status'] !== undefined) grpcStatus = Number(got['grpc-status']);
        };
        stream.on('response', look);
        stream.on('trailers', look);
        stream.on('close', () => resolve({ rst: stream.rstCode ?? constants.NGHTTP2_NO_ERROR, grpcStatus }));
        stream.resume();
        stream.end(body);
      }),
    async [Symbol.asyncDispose]() {
      session.destroy();
    },
  };
}

/** Frames of the profile. */
async function frameCaller(world: EchoWorld): Promise<RudeCaller> {
  const peer = await rawPeer(world.mesh, world.service);
  let stream = -1;
  const framesOf = (method: Method, body: Uint8Array, flags: number, headers: OutgoingHttpHeaders = {}) => {
    stream += 2;
    const more = Object.entries(headers).map(([name, value]) => [name, String(value)] as const);
    const fields = hpack(callFields(`/test.echo.v1.Echo/${method}`, more));
    return Buffer.concat([
      frame(FrameType.HEADERS, Flag.END_HEADERS, stream, fields),
      frame(FrameType.DATA, flags, stream, body),
    ]);
  };
  return {
    begin: (method, body) => void peer.socket.write(framesOf(method, body, 0)),
    async call(method, body, headers) {
      // No window is granted for more than the first of it; what is refused is refused before.
      peer.socket.write(framesOf(method, body.subarray(0, 200 * KB), Flag.END_STREAM, headers));
      const id = stream;
      let answer: Answer | undefined;
      await eventually(() => {
        const frames = peer.frames().filter((one) => one.stream === id);
        const last = frames.findLast(
          ({ type, flags }) => type === FrameType.HEADERS && (flags & Flag.END_STREAM) !== 0,
        );
        const reset = frames.find(({ type }) => type === FrameType.RST_STREAM);
        assert.ok(last || reset || peer.isClosed);
        const trailers = last ? decodeFields(last.payload, 0, last.payload.length) : [];
        const at = trailers.indexOf('grpc-status');
        answer = {
          rst: reset?.payload.readUInt32BE(0) ?? 0,
          grpcStatus: at < 0 ? undefined : Number(trailers[at + 1]),
        };
      });
      return answer as Answer;
    },
    [Symbol.asyncDispose]: async () => void peer.socket.destroy(),
  };
}

function many(count: number): OutgoingHttpHeaders {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, 'a']));
}

/** Members of gzip follow each other (RFC 1952 §2.2), so making it needs no more memory than one of them. */
function bomb(megabytes: number): Buffer {
  const member = gzipSync(Buffer.alloc(8 * MB, ' '));
  return Buffer.concat(Array.from({ length: megabytes / 8 }, () => member));
}

const hello = grpcMessage(Buffer.from('{"text":"a"}'));

forEachLane((lane) => {
  describe('calls that want to exhaust the service', () => {
    for (const method of ['say', 'upload', 'download', 'chat']) {
      it(`T19 T28 ${method} without a rule is refused before any of its message has come`, async () => {
        await using world = await echoWorld();
        using stranger = await rawPeer(world.mesh, world.service, { identity: 'stranger' });
        const fields = hpack(callFields(`/test.echo.v1.Echo/${method}`));

        await stranger.write(frame(FrameType.HEADERS, Flag.END_HEADERS, 1, fields));

        await eventually(() => assert.ok(stranger.frames().some(({ stream }) => stream === 1)));
        const [denied, ...others] = world.events('call-denied');
        assert.deepEqual(
          [denied?.peer, denied?.method, others],
          [world.mesh.id('stranger'), `test.echo.v1.Echo/${method}`, []],
        );
        assert.deepEqual(world.handled('stranger'), []);
      });
    }

    const tooMuch: [string, OutgoingHttpHeaders][] = [
      ['17 KiB of metadata', { 'x-large': 'a'.repeat(17 * KB) }],
      ['105 entries of metadata', many(105)],
    ];
    for (const [what, headers] of tooMuch) {
      for (const method of ['say', 'upload'] as const) {
        it(`T27 ${what} for ${method} are answered with RESOURCE_EXHAUSTED before any handler`, async () => {
          await using world = await echoWorld();
          await using rude = await rudeCaller(lane, world);

          const answer = await rude.call(method, hello, headers);

          assert.equal(answer.grpcStatus, Status.RESOURCE_EXHAUSTED);
          assert.deepEqual(world.handled(), []);
          assert.deepEqual(
            world.events('call-rejected').map(({ peer, method, status }) => [peer, method, status]),
            [[world.mesh.id('raw'), `test.echo.v1.Echo/${method}`, 'RESOURCE_EXHAUSTED']],
          );
          assert.equal((await rude.call('say', hello)).grpcStatus, Status.OK);
        });
      }
    }

    const beyond: [string, OutgoingHttpHeaders][] = [
      ['70 KiB of metadata', { 'x-large': 'a'.repeat(70 * KB) }],
      ['300 entries of metadata', many(300)],
    ];
    for (const [what, headers] of beyond) {
      it(`T27 ${what} reach no handler, and the service serves on`, async () => {
        await using world = await echoWorld();
        await using rude = await rudeCaller(lane, world);

        const answer = await rude.call('say', hello, headers);

        assert.notEqual(answer.grpcStatus, Status.OK);
        assert.deepEqual(world.handled(), []);
        await world.client.say({ text: 'still here' });
      });
    }

    it('T27 metadata within the limits reach the handler', async () => {
      await using world = await echoWorld();
      await using rude = await rudeCaller(lane, world);

      const answer = await rude.call('say', hello, { ...many(90), 'x-large': 'a'.repeat(14 * KB) });

      assert.equal(answer.grpcStatus, Status.OK);
      assert.equal(String(world.handled()[0]?.get('x-large')).length, 14 * KB);
    });

    const messages: [string, Buffer, OutgoingHttpHeaders?][] = [
      ['a message over the limit', grpcMessage(Buffer.alloc(65 * KB, '1'))],
      ['a length over the limit before any of the message', Buffer.of(0, 0xff, 0xff, 0xff, 0xff)],
      ['a decompression bomb of 256 MiB', grpcMessage(bomb(256), true), { 'grpc-encoding': 'gzip' }],
    ];
    for (const [what, body, headers] of messages) {
      // Nothing compressed is taken on the fast lane.
      const isForeign = lane.name === 'fast' && headers !== undefined;
      const status = isForeign ? 'UNIMPLEMENTED' : 'RESOURCE_EXHAUSTED';
      it(`T28 ${what} is answered with ${status} before any handler, in little memory`, async () => {
        await using world = await echoWorld({
          server: { limits: { maxMessageBytes: what.includes('bomb') ? MB : 64 * KB } },
        });
        await using rude = await rudeCaller(lane, world);
        const before = process.memoryUsage().rss;

        const answer = await whileCalling(
          () => world.client.say({ text: 'a' }),
          () => rude.call('say', body, headers),
        );

        assert.equal(answer.grpcStatus, Status[status]);
        assert.ok(process.memoryUsage().rss - before < 100 * MB);
        assert.deepEqual(world.handled(), []);
        assert.equal((await rude.call('say', hello)).grpcStatus, Status.OK);
      });
    }

    it('T28 a message over the limit in the middle of a stream ends that call alone', async () => {
      await using world = await echoWorld({ server: { limits: { maxMessageBytes: 64 * KB } } });
      await using rude = await rudeCaller(lane, world);

      const answer = await rude.call('upload', Buffer.concat([hello, grpcMessage(Buffer.alloc(65 * KB, '1'))]));

      assert.equal(answer.grpcStatus, Status.RESOURCE_EXHAUSTED);
      assert.equal((await rude.call('say', hello)).grpcStatus, Status.OK);
    });

    it('T28 a bomb in the encoding of another library is refused as not supported', async () => {
      await using world = await echoWorld();
      await using rude = await rudeCaller(lane, world);

      const answer = await rude.call('say', grpcMessage(Buffer.alloc(100), true), { 'grpc-encoding': 'br' });

      assert.equal(answer.grpcStatus, Status.UNIMPLEMENTED);
      assert.deepEqual(world.handled(), []);
    });

    it('T28 messages that are never finished do not fill the memory', async () => {
      await using world = await echoWorld({ server: { limits: { maxMessageBytes: 64 * KB } } });
      await using rude = await rudeCaller(lane, world);
      const unfinished = grpcMessage(Buffer.alloc(60 * KB)).subarray(0, 50 * KB);

      for (let i = 0; i < 100; i++) rude.begin('say', unfinished);

      await eventually(() => {
        assert.deepEqual(
          world.events('connection-closed-by-policy').map(({ reason }) => reason),
          ['abuse'],
        );
      });
      await world.client.say({ text: 'still here' });
    });
  });
});
