import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createService, registry, silentLogger } from '@sallyport/core';
import { fakeClock, IssuedSource } from '@sallyport/testing';
import { clientOn, ErrorCode } from '@sallyport/transport-mtls/spi';
import { Echo, type EchoWorld, echoWorld } from '../support/echo.js';
import { eventually } from '../support/eventually.js';
import {
  callFields,
  Flag,
  FrameType,
  frame,
  grpcMessage,
  type HeaderFields,
  hpack,
  ping,
  rstStream,
  settings,
  settingsAck,
  windowUpdate,
} from '../support/h2-frames.js';
import { forEachLane, type Lane } from '../support/lanes.js';
import { type RawPeer, rawPeer } from '../support/raw-peer.js';
import { contextOf } from '../support/registry-context.js';
import { slowLink } from '../support/slow-link.js';
import { whileCalling } from '../support/steady-caller.js';

const PATH = '/test.echo.v1.Echo/say';
const END = Flag.END_STREAM | Flag.END_HEADERS;
/** No attack lasts longer, whether it succeeds or not. */
const ATTACK_MS = 5000;

function headers(stream: number, fields: HeaderFields = callFields(PATH), flags: number = Flag.END_HEADERS): Buffer {
  return frame(FrameType.HEADERS, flags, stream, hpack(fields));
}

function repeat(bytes: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => bytes));
}

/** Sends what `next` gives until the connection is over, `maxWrites` are done or the time is up. */
async function flood(peer: RawPeer, next: () => Buffer, maxWrites = Number.POSITIVE_INFINITY): Promise<void> {
  const until = Date.now() + ATTACK_MS;
  for (let i = 0; i < maxWrites && Date.now() < until; i++) {
    if (!(await peer.write(next()))) return;
  }
}

/** Attacks with one connection; others go on calling. */
async function attack(world: EchoWorld, how: (peer: RawPeer) => Promise<void>): Promise<RawPeer> {
  return await whileCalling(
    () => world.client.say({ text: 'a' }),
    async () => {
      using peer = await rawPeer(world.mesh, world.service);
      await how(peer);
      return peer;
    },
  );
}

async function requireEviction(world: EchoWorld): Promise<void> {
  await eventually(() => {
    const closed = world.events('connection-closed-by-policy');
    assert.deepEqual(
      closed.map(({ peer, reason }) => [peer, reason]),
      [[world.mesh.id('raw'), 'abuse']],
    );
  });
  await world.client.say({ text: 'still here' });
}

/**
 * The fast lane says with an error code of RFC 9113 why it leaves, once, and an event tells of it. What nghttp2 says below
 * grpc-js is its own affair.
 */
async function requireGoodbye(lane: Lane, world: EchoWorld, peer: RawPeer, code: ErrorCode): Promise<void> {
  if (lane.name !== 'fast') return;
  await requireEviction(world);
  await eventually(() => assert.ok(peer.isClosed));
  const goodbyes = peer.frames().filter(({ type }) => type === FrameType.GOAWAY);
  assert.deepEqual(
    goodbyes.map(({ payload }) => payload.readUInt32BE(4)),
    [code],
  );
}

forEachLane((lane) => {
  describe('frames that want to exhaust the service', () => {
    // nghttp2 counts streams; the fast lane counts what they cost, and has more patience.
    const resets = lane.name === 'grpc' ? 20_000 : 40_000;
    it(`T29 ${resets} calls that are reset at once are answered with GOAWAY, then with silence`, async () => {
      await using world = await echoWorld({
        server: { limits: { keepaliveIntervalMs: 500, keepaliveTimeoutMs: 1000 } },
      });
      let stream = -1;
      const call = () => {
        stream += 2;
        return Buffer.concat([headers(stream), rstStream(stream, 8)]);
      };

      const peer = await attack(world, async (attacker) => {
        await flood(attacker, () => Buffer.concat(Array.from({ length: 500 }, call)), resets / 500);
        await eventually(() => assert.ok(attacker.isClosed));
      });

      assert.ok(peer.frames().some(({ type }) => type === FrameType.GOAWAY));
      assert.ok(world.handled().length < 1100, 'what nghttp2 lets pass before it loses patience');
      await requireGoodbye(lane, world, peer, ErrorCode.ENHANCE_YOUR_CALM);
    });

    const endless: [string, Buffer][] = [
      ['that carry fields', frame(FrameType.CONTINUATION, 0, 1, hpack([['x-a', 'b'.repeat(100)]]))],
      ['that are empty', frame(FrameType.CONTINUATION, 0, 1)],
    ];
    for (const [what, continuation] of endless) {
      it(`T30 headers that never end, in CONTINUATION frames ${what}, end the connection`, async () => {
        await using world = await echoWorld();

        const peer = await attack(world, async (attacker) => {
          await attacker.write(headers(1, callFields(PATH), 0));
          await flood(attacker, () => repeat(continuation, 200), 1000);
        });

        assert.ok(peer.isClosed);
        await requireEviction(world);
        // The profile has no such headers: the first frame is one too many.
        await requireGoodbye(lane, world, peer, ErrorCode.PROTOCOL_ERROR);
      });
    }

    const malformed: [string, Buffer, ErrorCode][] = [
      [
        'an index beyond the table',
        frame(FrameType.HEADERS, END, 1, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff)),
        ErrorCode.COMPRESSION_ERROR,
      ],
      ['an even stream', headers(2), ErrorCode.PROTOCOL_ERROR],
      ['stream 0', headers(0), ErrorCode.PROTOCOL_ERROR],
      [
        'CONTINUATION without HEADERS',
        frame(FrameType.CONTINUATION, Flag.END_HEADERS, 1, hpack(callFields(PATH))),
        ErrorCode.PROTOCOL_ERROR,
      ],
      ['DATA on an idle stream', frame(FrameType.DATA, 0, 7, Buffer.alloc(8)), ErrorCode.PROTOCOL_ERROR],
      ['a frame over the size limit', frame(FrameType.DATA, 0, 1, Buffer.alloc(300_000)), ErrorCode.FRAME_SIZE_ERROR],
      ['PUSH_PROMISE from a client', frame(0x5, Flag.END_HEADERS, 1, Buffer.of(0, 0, 0, 2)), ErrorCode.PROTOCOL_ERROR],
      ['an empty WINDOW_UPDATE', windowUpdate(0, 0), ErrorCode.PROTOCOL_ERROR],
      ['a window beyond 2^31', windowUpdate(0, 0x7fff_ffff), ErrorCode.FLOW_CONTROL_ERROR],
      [
        '1,000 settings in one frame',
        settings(Array.from({ length: 1000 }, (_, i) => [i + 100, 1] as const)),
        ErrorCode.FRAME_SIZE_ERROR,
      ],
      ['a PING of the wrong length', frame(FrameType.PING, 0, 0, Buffer.alloc(4)), ErrorCode.FRAME_SIZE_ERROR],
    ];
    for (const [what, bytes, code] of malformed) {
      it(`T31 ${what} ends the connection with GOAWAY and reaches no handler`, async () => {
        await using world = await echoWorld();
        using peer = await rawPeer(world.mesh, world.service);

        await peer.write(bytes);

        await eventually(() => assert.ok(peer.isClosed || peer.frames().some(({ type }) => type === FrameType.GOAWAY)));
        assert.deepEqual(world.handled(), []);
        await requireGoodbye(lane, world, peer, code);
        await world.client.say({ text: 'still here' });
      });
    }

    const refused: [string, HeaderFields][] = [
      ['an upper-case name', callFields(PATH, [['X-Upper', 'a']])],
      ['a field of HTTP/1.1', callFields(PATH, [['connection', 'close']])],
      ['no path', callFields(PATH).filter(([name]) => name !== ':path')],
      ['two methods', [[':method', 'POST'], ...callFields(PATH)]],
      ['a pseudo-header after the fields', [...callFields(PATH), [':path', PATH]]],
      ['the content type of a form', callFields(PATH).map(([n, v]) => [n, n === 'content-type' ? 'text/plain' : v])],
    ];
    for (const [what, fields] of refused) {
      it(`T31 a request with ${what} reaches no handler, and the service serves on`, async () => {
        await using world = await echoWorld();
        using peer = await rawPeer(world.mesh, world.service);
        const message = frame(FrameType.DATA, Flag.END_STREAM, 1, grpcMessage(Buffer.from('{"text":"a"}')));

        await peer.write(Buffer.concat([headers(1, fields), message]));

        await eventually(() => assert.ok(peer.isClosed || peer.frames().some(({ stream }) => stream === 1)));
        assert.deepEqual(world.handled(), []);
        await requireGoodbye(lane, world, peer, ErrorCode.PROTOCOL_ERROR);
        await world.client.say({ text: 'still here' });
      });
    }

    for (const value of ['a\r\nauthorization: b', 'a\nb', 'a\0b', 'a\x7fb']) {
      it(`T31 a field with the value ${JSON.stringify(value)} reaches no handler`, async () => {
        await using world = await echoWorld();
        using peer = await rawPeer(world.mesh, world.service);
        const fields = callFields(PATH, [
          ['x-bad', value],
          ['x-good', 'a'],
        ]);
        const message = frame(FrameType.DATA, Flag.END_STREAM, 1, grpcMessage(Buffer.from('{"text":"a"}')));

        await peer.write(Buffer.concat([headers(1, fields), message]));

        await eventually(() => assert.ok(peer.isClosed || peer.frames().some(({ stream }) => stream === 1)));
        await requireGoodbye(lane, world, peer, ErrorCode.PROTOCOL_ERROR);
        const [metadata] = world.handled();
        assert.ok(metadata === undefined || (metadata.get('x-bad') === undefined && !metadata.get('authorization')));
      });
    }

    const floods: [string, Buffer, ErrorCode?][] = [
      ['PING', repeat(ping(), 100)],
      ['SETTINGS', repeat(settings(), 500)],
      ['acknowledged SETTINGS', repeat(settingsAck(), 500)],
      ['SETTINGS of 30 entries', repeat(settings(Array.from({ length: 30 }, (_, i) => [i + 100, 1] as const)), 500)],
      ['WINDOW_UPDATE', repeat(windowUpdate(0, 1), 500)],
      ['PRIORITY', repeat(frame(FrameType.PRIORITY, 0, 1, Buffer.alloc(5)), 500), ErrorCode.PROTOCOL_ERROR],
      ['unknown frames', repeat(frame(0x42, 0, 0), 500), ErrorCode.PROTOCOL_ERROR],
    ];
    for (const [what, bytes, code = ErrorCode.ENHANCE_YOUR_CALM] of floods) {
      it(`T32 a flood of ${what} from a peer that reads the answers ends its connection`, async () => {
        const clock = fakeClock();
        await using world = await echoWorld({ server: { limits: { maxMessageBytes: 64 * 1024 } } }, { clock });

        const peer = await attack(world, async (attacker) => {
          const patrols = (async () => {
            for (let i = 0; i < 10 && !attacker.isClosed; i++) {
              await new Promise((resolve) => setTimeout(resolve, 150));
              await clock.advance(1000);
            }
          })();
          await Promise.all([flood(attacker, () => bytes), patrols]);
        });

        assert.ok(peer.isClosed);
        await requireEviction(world);
        await requireGoodbye(lane, world, peer, code);
      });
    }

    it('T32 a flood of PING ends its connection within seconds of real time', async () => {
      await using world = await echoWorld({ server: { limits: { maxMessageBytes: 1024 * 1024 } } });
      const pings = repeat(ping(), 500);

      const peer = await attack(world, (attacker) => flood(attacker, () => pings));

      assert.ok(peer.isClosed);
      await requireEviction(world);
    });

    it('T32 floods of PING that wait for their answers, on 4 connections, end within seconds with the limits as they are', async () => {
      await using world = await echoWorld();
      const pings = repeat(ping(), 400);
      const peers = await Promise.all(
        Array.from({ length: 4 }, () => rawPeer(world.mesh, world.service, { keep: false })),
      );

      await whileCalling(
        () => world.client.say({ text: 'a' }),
        async () => {
          // Faster than the answers leave, nghttp2 ends it by itself.
          const paced = async (peer: RawPeer) => {
            const until = Date.now() + ATTACK_MS;
            while (Date.now() < until && (await peer.write(pings))) {
              await Promise.race([once(peer.socket, 'data').catch(() => {}), peer.closed]);
            }
          };
          await Promise.all(peers.map(paced));
        },
      );

      assert.ok(peers.every(({ isClosed }) => isClosed));
      assert.ok(world.events('connection-closed-by-policy').every(({ reason }) => reason === 'abuse'));
    });

    it('T32 whoever was closed for a flood is not let in again at once, but later', async () => {
      const clock = fakeClock();
      await using world = await echoWorld({ server: { limits: { maxMessageBytes: 64 * 1024 } } }, { clock });
      using flooder = await rawPeer(world.mesh, world.service, { keep: false });
      const nuisance = lane.name === 'grpc' ? frame(0x42, 0, 0) : settingsAck();
      for (let i = 0; i < 40; i++) await flooder.write(repeat(nuisance, 5000));
      await eventually(async () => {
        await clock.advance(1000);
        assert.ok(flooder.isClosed);
      });

      using early = await rawPeer(world.mesh, world.service);
      await eventually(() => assert.ok(early.isClosed));
      using other = await rawPeer(world.mesh, world.service, { identity: 'other' });
      await clock.advance(10_000);
      using late = await rawPeer(world.mesh, world.service);
      await late.write(ping());

      await eventually(() => assert.ok(late.frames().some(({ type }) => type === FrameType.PING)));
      assert.ok(!other.isClosed);
      assert.deepEqual(
        world.events('handshake-refused').map(({ peer, reason }) => [peer, reason]),
        [[world.mesh.id('raw'), 'abuse']],
      );
    });

    it('T28 many connections with a few unfinished messages each end like one with many', async () => {
      const clock = fakeClock();
      const maxMessageBytes = 64 * 1024;
      await using world = await echoWorld({ server: { limits: { maxMessageBytes } } }, { clock });
      const unfinished = (stream: number) => {
        const part = grpcMessage(Buffer.alloc(60 * 1024)).subarray(0, 50 * 1024);
        const data = Array.from({ length: 5 }, (_, i) =>
          frame(FrameType.DATA, 0, stream, part.subarray(i * 10_240, (i + 1) * 10_240)),
        );
        return Buffer.concat([headers(stream), ...data]);
      };
      const send = async (count: number) => {
        const peers = await Promise.all(Array.from({ length: count }, () => rawPeer(world.mesh, world.service)));
        for (let stream = 1; stream < 16; stream += 2) {
          for (const peer of peers) await peer.write(unfinished(stream));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        await clock.advance(1000);
        return peers;
      };

      const few = await send(2);
      assert.ok(
        few.every(({ isClosed }) => !isClosed),
        'a few are no attack',
      );
      const many = await send(18);

      await eventually(() => assert.ok(many.every(({ isClosed }) => isClosed)));
      await world.client.say({ text: 'still here' });
      for (const peer of [...few, ...many]) peer.socket.destroy();
    });

    it('T32 a flood of empty DATA on an open call ends the connection', async () => {
      await using world = await echoWorld();

      const peer = await attack(world, async (attacker) => {
        await attacker.write(headers(1, callFields('/test.echo.v1.Echo/upload')));
        await flood(attacker, () => repeat(frame(FrameType.DATA, 0, 1), 500));
      });

      assert.ok(peer.isClosed);
      await requireEviction(world);
      await requireGoodbye(lane, world, peer, ErrorCode.ENHANCE_YOUR_CALM);
    });

    it('T32 does not take heavy traffic for a flood: many calls, large messages, long streams both ways', async function () {
      this.timeout(20_000);
      await using world = await echoWorld({ server: { limits: { keepaliveIntervalMs: 50 } } });
      const { client: echo } = world;
      const large = { text: 'x'.repeat(512 * 1024) };
      async function* messages(count: number, message: { text: string }) {
        for (let i = 0; i < count; i++) yield message;
      }
      async function calls(count: number) {
        for (let i = 0; i < count; i++) await echo.say({ text: 'a' });
      }
      async function download() {
        let length = 0;
        for await (const { text } of echo.download({ messages: 100, length: 64 * 1024 })) length += text.length;
        return length;
      }
      async function chat() {
        let count = 0;
        for await (const _ of echo.chat(messages(500, { text: 'a'.repeat(1000) }))) count++;
        return count;
      }

      const [uploaded, downloaded, chatted] = await Promise.all([
        echo.upload(messages(20, large)),
        download(),
        chat(),
        echo.say(large),
        ...Array.from({ length: 20 }, () => calls(150)),
      ]);

      assert.equal(uploaded.length, 20 * large.text.length);
      assert.equal(downloaded, 100 * 64 * 1024);
      assert.equal(chatted, 500);
      await new Promise((resolve) => setTimeout(resolve, 1100));
      assert.deepEqual(world.events('connection-closed-by-policy'), []);
    });

    it('T32 does not take large messages on a slow link for a flood', async () => {
      await using world = await echoWorld();
      const [endpoint] = world.service.endpoints;
      assert.ok(endpoint);
      await using link = await slowLink(endpoint, 1_000_000);
      const detour = registry.memory();
      const session = await detour.open(contextOf('echo'));
      await session.register({
        id: 'echo-behind-a-slow-link',
        service: 'echo',
        version: '1.0.0',
        endpoints: [link.endpoint],
        identity: world.mesh.id('echo'),
        metadata: {},
        weight: 100,
        zone: '',
        state: 'ready',
        contracts: [],
      });
      const { authority } = world.mesh;
      const caller = createService({
        name: 'remote',
        version: '1.0.0',
        registry: detour,
        tls: new IssuedSource({
          identity: authority.issue({ id: world.mesh.id('web') }),
          bundlePem: authority.bundlePem,
        }),
        client: clientOn([lane.name], {}),
        logger: silentLogger,
      });
      await caller.start();
      const remote = caller.client(Echo, { service: 'echo' });
      const large = { text: 'x'.repeat(400 * 1024) };

      const answers = await Promise.all(Array.from({ length: 5 }, () => remote.say(large)));

      assert.ok(answers.every(({ text }) => text === large.text));
      assert.deepEqual(world.events('connection-closed-by-policy'), []);
      await caller.stop();
      await session.close();
    });
  });
});
