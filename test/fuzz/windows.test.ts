import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import type { IncomingCall } from '@sallyport/core/spi';
import { DeadlineWheel, FastChannel, FloodGuard, fastServerLane } from '@sallyport/transport-mtls/spi';
import {
  callFields,
  Flag,
  FrameType,
  frame,
  framesIn,
  grpcMessage,
  hello,
  hpack,
  rstStream,
  settings,
  windowUpdate,
} from '../support/h2-frames.js';
import { checkCommands } from './commands.js';
import { METHODS } from './corpus.js';
import { MemorySocket } from './memory-socket.js';
import type { Random } from './random.js';
import { clientOptions, identity, serverLimits } from './subjects.js';

const FLOW_CONTROL_ERROR = 3;
const STREAMS = 4;
const WIDE_BYTES = 1024 * 1024;
const CONNECTION_BYTES = 16 * 1024 * 1024;
const HELD_BYTES = 16 * 1024 * 1024;

interface Sending {
  readonly what: 'send' | 'end' | 'cancel' | 'reset' | 'grant' | 'grant all' | 'initial window' | 'frame size';
  readonly stream: number;
  readonly bytes: number;
}

function sending(random: Random): Sending {
  const what = random.pick([
    'send',
    'send',
    'send',
    'send',
    'grant',
    'grant',
    'grant all',
    'initial window',
    'frame size',
    'end',
    'cancel',
    'reset',
  ] as const);
  const isRare = (what === 'end' || what === 'cancel' || what === 'reset') && !random.once(3);
  return {
    what: isRare ? 'send' : what,
    stream: random.below(STREAMS),
    bytes: random.pick([1, 5, 100, 5000, 16_384, 60_000]),
  };
}

/** What the peer of a client knows: windows as RFC 9113 §6.9 counts them, and what should have come. */
class Receiver {
  readonly socket = new MemorySocket(true);
  readonly channel: FastChannel;
  readonly streams;
  #window = 65_535;
  #initial = 65_535;
  #maxFrame = 16_384;

  constructor() {
    const onNothing = () => {};
    const context = { options: clientOptions, wheel: new DeadlineWheel(), onViolation: onNothing, onIdle: onNothing };
    this.channel = new FastChannel(this.socket.socket, context);
    this.socket.arrive(settings());
    const call = { path: METHODS.many, metadata: undefined, deadlineAt: Date.now() + 60_000 };
    this.streams = Array.from({ length: STREAMS }, (_, i) => {
      const stream = this.channel.stream(call);
      stream.trailers.catch(onNothing);
      return {
        id: 1 + 2 * i,
        stream,
        window: 65_535,
        owed: [] as Buffer[],
        got: 0,
        ended: false,
        asked: false,
        over: false,
      };
    });
  }

  async obey({ what, stream: index, bytes }: Sending): Promise<void> {
    const one = this.streams[index];
    assert.ok(one);
    if (what === 'send' && !one.over && !one.asked) {
      const message = Buffer.alloc(bytes, one.owed.length);
      one.owed.push(grpcMessage(message));
      void one.stream.send(message);
    } else if (what === 'end' && !one.over) {
      one.asked = true;
      one.stream.halfClose();
    } else if (what === 'cancel') {
      one.over = true;
      one.stream.cancel();
    } else if (what === 'reset') {
      one.over = true;
      this.socket.arrive(rstStream(one.id, 8));
    } else if (what === 'grant') {
      one.window += bytes;
      this.socket.arrive(windowUpdate(one.id, bytes));
    } else if (what === 'grant all') {
      this.#window += bytes;
      this.socket.arrive(windowUpdate(0, bytes));
    } else if (what === 'initial window') {
      for (const each of this.streams) each.window += bytes - this.#initial;
      this.#initial = bytes;
      this.socket.arrive(settings([[4, bytes]]));
    } else if (what === 'frame size') {
      this.#maxFrame = 16_384 + bytes;
      this.socket.arrive(settings([[5, this.#maxFrame]]));
    }
    await turn();
    this.#read();
    this.#requireProgress();
  }

  /** Grants whatever is missing: everything that was sent arrives. */
  async finish(): Promise<void> {
    for (const [index, one] of this.streams.entries()) {
      await this.obey({ what: 'grant', stream: index, bytes: 10_000_000 });
      await this.obey({ what: 'grant all', stream: index, bytes: 10_000_000 });
      if (!one.over) assert.equal(one.got, Buffer.concat(one.owed).length);
      if (!one.over && one.asked) assert.ok(one.ended, 'everything was sent, and END_STREAM is missing');
      one.stream.cancel();
    }
    assert.equal(this.channel.calls, 0);
    assert.ok(this.channel.hasRoomFor(HELD_BYTES), 'something still waits to be sent');
    this.channel.destroy();
    this.socket.settle();
  }

  #read(): void {
    const written = this.socket.take();
    const frames = framesIn(written.subarray(written.indexOf('PRI') === 0 ? 24 : 0));
    for (const { type, flags, stream, payload } of frames) {
      assert.notEqual(type, FrameType.GOAWAY, 'the client left');
      if (type !== FrameType.DATA) continue;
      const one = this.streams[(stream - 1) / 2];
      assert.ok(one && !one.ended, 'DATA after END_STREAM');
      assert.ok(payload.length <= this.#maxFrame, `a frame of ${payload.length}, allowed ${this.#maxFrame}`);
      assert.ok(payload.length === 0 || payload.length <= one.window, 'more than the stream window');
      assert.ok(payload.length === 0 || payload.length <= this.#window, 'more than the window of the connection');
      one.window -= payload.length;
      this.#window -= payload.length;
      const owed = Buffer.concat(one.owed).subarray(one.got, one.got + payload.length);
      assert.ok(owed.equals(payload), 'other bytes than were sent, or in another order');
      one.got += payload.length;
      one.ended = (flags & Flag.END_STREAM) !== 0;
      assert.ok(!one.ended || one.asked, 'END_STREAM that nobody asked for');
    }
  }

  /** Nothing is held back that the windows allow. */
  #requireProgress(): void {
    for (const one of this.streams) {
      const waits = !one.over && one.got < Buffer.concat(one.owed).length;
      if (waits)
        assert.ok(one.window <= 0 || this.#window <= 0, `stream ${one.id} waits with a window of ${one.window}`);
    }
  }
}

interface Receiving {
  readonly what: 'data' | 'consume' | 'overrun' | 'reset';
  readonly stream: number;
  readonly bytes: number;
}

function receiving(random: Random): Receiving {
  const what = random.once(60) ? 'overrun' : random.once(40) ? 'reset' : random.pick(['data', 'consume'] as const);
  return { what, stream: random.below(STREAMS), bytes: random.pick([0, 10, 1000, 30_000, 60_000]) };
}

/** What the peer of a server knows: what it was granted, and what handlers have read. */
class Sender {
  readonly socket = new MemorySocket(true);
  readonly streams;
  readonly #readers: AsyncIterator<Uint8Array>[] = [];
  #connection: { readonly calls: number } | undefined;
  #window = 65_535;
  #over = false;

  constructor() {
    const serve = (call: IncomingCall) => {
      this.#connection = (call as IncomingCall & { connection: { calls: number } }).connection;
      this.#readers.push(call.messages()[Symbol.asyncIterator]());
    };
    const method = { refusal: () => undefined, path: METHODS.many, requestStream: true, responseStream: true, serve };
    const lane = fastServerLane({ methods: [method], events: { emit() {} } }, serverLimits);
    lane.accept(this.socket.socket, { identity, guard: new FloodGuard(serverLimits.maxMessageBytes) });
    this.socket.arrive(hello());
    this.streams = Array.from({ length: STREAMS }, (_, i) => {
      const id = 1 + 2 * i;
      this.socket.arrive(frame(FrameType.HEADERS, Flag.END_HEADERS, id, hpack(callFields(METHODS.many))));
      return { id, window: 262_144, unread: [] as number[], over: false };
    });
  }

  async obey({ what, stream: index, bytes }: Receiving): Promise<void> {
    const one = this.streams[index];
    if (!one || one.over || this.#over) return;
    if (what === 'data') {
      const message = grpcMessage(Buffer.alloc(bytes));
      if (message.length > one.window || message.length > this.#window) return;
      one.window -= message.length;
      this.#window -= message.length;
      one.unread.push(message.length);
      this.socket.arrive(frame(FrameType.DATA, 0, one.id, message));
    } else if (what === 'consume') {
      if (one.unread.shift() === undefined) return;
      const { done } = (await this.#readers[index]?.next()) ?? {};
      assert.equal(done, false);
    } else if (what === 'reset') {
      one.over = true;
      this.socket.arrive(rstStream(one.id, 8));
    } else {
      this.#overrun(one);
      return;
    }
    await turn();
    this.#read();
  }

  finish(): void {
    if (!this.#over) this.socket.emit('end');
    this.socket.settle();
    assert.equal(this.#connection?.calls, 0);
  }

  /** A frame with one byte more than was granted. */
  #overrun(one: { id: number; window: number }): void {
    if (one.window >= 262_144) return;
    this.#over = true;
    this.socket.take();
    this.socket.arrive(frame(FrameType.DATA, 0, one.id, Buffer.alloc(one.window + 1)));
    assert.equal(this.socket.lastWords, FLOW_CONTROL_ERROR);
  }

  #read(): void {
    for (const { type, stream, payload } of framesIn(this.socket.take())) {
      assert.notEqual(type, FrameType.GOAWAY, 'DATA inside of the window ended the connection');
      if (type !== FrameType.WINDOW_UPDATE) continue;
      if (stream === 0) this.#window += payload.readUInt32BE(0);
      const one = this.streams[(stream - 1) / 2];
      if (one) one.window += payload.readUInt32BE(0);
    }
    assert.ok(this.#window <= CONNECTION_BYTES, `${this.#window} bytes granted to the connection`);
    for (const { id, window, unread } of this.streams) {
      const held = unread.reduce((sum, bytes) => sum + bytes, 0);
      assert.ok(
        window + held <= WIDE_BYTES,
        `stream ${id}: ${window} bytes granted while ${held} wait for their reader`,
      );
      if (held === 0)
        assert.ok(window >= 131_072, `stream ${id}: everything was read, and only ${window} bytes are granted`);
    }
  }
}

describe('the windows of the fast lane', () => {
  it('are never overdrawn by a sender, and hold back nothing that they allow', async () => {
    await checkCommands({
      seed: 6,
      runs: 400,
      length: 60,
      command: sending,
      async run(commands) {
        const receiver = new Receiver();
        for (const one of commands) await receiver.obey(one);
        await receiver.finish();
      },
    });
  }).timeout(30_000);

  it('are granted as far as readers read, and no further', async () => {
    await checkCommands({
      seed: 7,
      runs: 80,
      length: 700,
      command: receiving,
      async run(commands) {
        const sender = new Sender();
        for (const one of commands) await sender.obey(one);
        sender.finish();
      },
    });
  }).timeout(30_000);
});
