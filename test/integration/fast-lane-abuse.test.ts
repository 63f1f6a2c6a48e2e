import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { FAST_PROTOCOL, requestFields } from '@sallyport/transport-mtls/spi';
import { allow, bidi, type Client, defineContract, type Service, serverStream, unary } from 'sallyport';
import { type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { eventually } from '../support/eventually.js';
import { Flag, FrameType, frame, grpcMessage, hpack, rstStream, settings, windowUpdate } from '../support/h2-frames.js';
import { type RawPeer, rawPeer } from '../support/raw-peer.js';

const Work = defineContract('test.abuse.v1.Work', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  load: serverStream(z.object({ messages: z.int() }), z.object({ text: z.string() })),
  chat: bidi(z.object({ text: z.string() }), z.object({ text: z.string() })),
});

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const MIB = 1024 * 1024;
/** What the process may grow by while a peer misbehaves: buffers are bounded, garbage comes on top. */
const MAX_GROWTH_BYTES = 64 * MIB;
const MESSAGE = 'm'.repeat(16_000);

interface World extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly service: Service;
  readonly client: Client<typeof Work>;
  /** Handlers of streams that run. */
  readonly running: () => number;
  /** Messages that the `load` handlers have given away. */
  readonly produced: () => number;
}

async function workWorld(): Promise<World> {
  const world = mesh();
  const service = world.service('work', {
    authorize: [allow({ from: [world.id('web'), world.id('raw')], to: 'test.abuse.v1.Work/*' })],
  });
  let running = 0;
  let produced = 0;
  service.handle(Work, {
    say: (request) => request,
    async *load({ messages }) {
      running++;
      try {
        for (let i = 0; i < messages; i++, produced++) yield { text: MESSAGE };
      } finally {
        running--;
      }
    },
    async *chat(requests) {
      running++;
      try {
        yield* requests;
      } finally {
        running--;
      }
    },
  });
  await world.start();
  const client = (await world.callerAs('web')).client(Work, { service: 'work' });
  await client.say({ text: 'hello' });
  const [isRunning, hasProduced] = [() => running, () => produced];
  const stop = () => world.stop();
  return { mesh: world, service, client, running: isRunning, produced: hasProduced, [Symbol.asyncDispose]: stop };
}

/** Calls of a well-behaved neighbour while somebody misbehaves, and what that costs; prints both. */
async function neighbour(world: World, what: string, misbehave: () => Promise<unknown>): Promise<void> {
  const before = process.memoryUsage();
  let most = 0;
  const times: number[] = [];
  let over = false;
  const abuse = misbehave().finally(() => {
    over = true;
  });
  while (!over || times.length < 50) {
    const startedAt = performance.now();
    await world.client.say({ text: 'still here' });
    times.push(performance.now() - startedAt);
    const { heapUsed, external } = process.memoryUsage();
    most = Math.max(most, heapUsed + external - before.heapUsed - before.external);
    await pause(2);
  }
  await abuse;
  times.sort((a, b) => a - b);
  const median = times[times.length >> 1] ?? 0;
  const worst = times.at(-1) ?? 0;
  console.log(
    `      ${what}: ${(most / MIB).toFixed(1)} MiB more at most; ${times.length} calls of the neighbour,`,
    `median ${median.toFixed(1)} ms, worst ${worst.toFixed(1)} ms`,
  );
  assert.ok(most < MAX_GROWTH_BYTES, `${most} bytes more`);
  assert.ok(worst < 5000, `a call took ${worst} ms`);
}

async function raw(world: World, initialWindow: number): Promise<RawPeer> {
  const peer = await rawPeer(world.mesh, world.service, { alpn: FAST_PROTOCOL, greet: false, keep: true });
  await peer.write(Buffer.concat([PREFACE, settings([[4, initialWindow]]), windowUpdate(0, 1_000_000_000)]));
  return peer;
}

function call(stream: number, method: string, deadlineMs = 60_000): Buffer {
  const fields = requestFields(`/test.abuse.v1.Work/${method}`, deadlineMs);
  const pairs: [string, string][] = [];
  for (let i = 0; i < fields.length; i += 2) pairs.push([fields[i] ?? '', fields[i + 1] ?? '']);
  return frame(FrameType.HEADERS, Flag.END_HEADERS, stream, hpack(pairs));
}

function request(stream: number, value: unknown): Buffer {
  return frame(FrameType.DATA, Flag.END_STREAM, stream, grpcMessage(Buffer.from(JSON.stringify(value))));
}

describe('a peer that abuses the fast lane', () => {
  it('reads nothing: what its calls produce stays bounded', async () => {
    await using world = await workWorld();
    using peer = await raw(world, 1_000_000_000);

    await neighbour(world, 'slow reader, 50 streams of 160 MB', async () => {
      peer.socket.pause();
      for (let i = 0; i < 50; i++)
        await peer.write(Buffer.concat([call(1 + 2 * i, 'load'), request(1 + 2 * i, { messages: 10_000 })]));
      await pause(500);
    });

    assert.ok(world.produced() * MESSAGE.length < 64 * MIB, `${world.produced()} messages were produced for nobody`);
  });

  it('writes a byte at a time: it costs little, and neighbours nothing', async () => {
    await using world = await workWorld();
    using peer = await raw(world, 65_535);
    const whole = Buffer.concat([call(1, 'say'), request(1, { text: 'slow' })]);

    await neighbour(world, `slow writer, ${whole.length} bytes one by one`, async () => {
      for (const byte of whole) await peer.write(Buffer.of(byte));
    });

    await eventually(() => {
      assert.ok(
        peer.frames().some(({ type, stream, flags }) => type === FrameType.HEADERS && stream === 1 && flags === 5),
      );
    });
  });

  it('vanishes in the midst of its calls: their handlers end', async () => {
    await using world = await workWorld();

    await neighbour(world, 'vanishing peer, 10 times 100 streams', async () => {
      for (let round = 0; round < 10; round++) {
        using peer = await raw(world, 100);
        for (let i = 0; i < 100; i++) {
          const chat = i % 2 === 0;
          const id = 1 + 2 * i;
          await peer.write(chat ? call(id, 'chat') : Buffer.concat([call(id, 'load'), request(id, { messages: 100 })]));
        }
        await eventually(() => assert.ok(world.running() >= 90));
        peer.socket.destroy();
        await eventually(() => assert.equal(world.running(), 0));
      }
    });
  });

  it('opens and cancels 10,000 streams: none of them leaves anything behind', async () => {
    await using world = await workWorld();
    using peer = await raw(world, 65_535);

    await neighbour(world, '10,000 streams opened and cancelled', async () => {
      for (let i = 0; i < 10_000; i += 20) {
        const frames = Array.from({ length: 20 }, (_, k) => 1 + 2 * (i + k));
        const written = await peer.write(Buffer.concat(frames.flatMap((id) => [call(id, 'chat'), rstStream(id, 8)])));
        assert.ok(written, `ended at stream ${i}`);
      }
    });

    await eventually(() => assert.equal(world.running(), 0));
    await peer.write(Buffer.concat([call(20_001, 'say'), request(20_001, { text: 'one more' })]));
    await eventually(() => {
      assert.ok(peer.frames().some(({ type, stream }) => type === FrameType.DATA && stream === 20_001));
    });
  });

  it('never grants a window: its answers wait until their deadline, and other streams go their way', async () => {
    await using world = await workWorld();
    using peer = await raw(world, 0);

    await neighbour(world, 'window never granted, 200 streams', async () => {
      for (let i = 0; i < 200; i++) {
        const id = 1 + 2 * i;
        await peer.write(Buffer.concat([call(id, 'load', 1000), request(id, { messages: 10_000 })]));
      }
      await peer.write(Buffer.concat([call(501, 'say'), request(501, { text: 'granted' }), windowUpdate(501, 1000)]));
      await eventually(() => {
        assert.ok(peer.frames().some(({ type, stream }) => type === FrameType.DATA && stream === 501));
      });
      assert.ok(!peer.frames().some(({ type, stream }) => type === FrameType.DATA && stream !== 501));
      await eventually(() => assert.equal(world.running(), 0));
    });

    assert.ok(world.produced() <= 2 * 200, `${world.produced()} messages were produced without a window`);
  });
});
