import assert from 'node:assert/strict';
import type { IncomingCall, ServedMethod } from '@sallyport/core/spi';
import { FloodGuard, fastServerLane, type HeldMemory } from '@sallyport/transport-mtls/spi';
import { callFields, Flag, FrameType, frame, framesIn, grpcMessage, hello, hpack } from '../support/h2-frames.js';
import { METHODS } from './corpus.js';
import { MemorySocket } from './memory-socket.js';
import { identity, serverLimits } from './subjects.js';

const CALLS = 400;
const MESSAGE_BYTES = 64 * 1024;
const STREAM_WINDOW_BYTES = 256 * 1024;

/** A server whose handlers read nothing, and the peer of it. */
class Hoarder {
  readonly #socket = new MemorySocket(true);
  readonly #calls: IncomingCall[] = [];
  #held: () => HeldMemory = () => assert.fail('nobody was asked whether it may call');

  constructor(path: string) {
    const method: ServedMethod = {
      path,
      requestStream: path === METHODS.many,
      responseStream: path === METHODS.many,
      refusal: () => undefined,
      serve: (call, request) => {
        this.#calls.push(call);
        const { connection } = call as IncomingCall & { connection: { readonly held: HeldMemory } };
        this.#held = () => connection.held;
        if (request) call.reply(request, undefined);
      },
    };
    const limits = { ...serverLimits, maxConcurrentCalls: CALLS, maxMessageBytes: MESSAGE_BYTES };
    const lane = fastServerLane({ methods: [method], events: { emit() {} } }, limits);
    lane.accept(this.#socket.socket, { identity, guard: new FloodGuard(MESSAGE_BYTES) });
    this.#socket.arrive(hello());
  }

  get held(): HeldMemory {
    return this.#held();
  }

  get served(): number {
    return this.#calls.length;
  }

  open(stream: number, path: string): void {
    this.#socket.arrive(frame(FrameType.HEADERS, Flag.END_HEADERS, stream, hpack(callFields(path))));
  }

  data(stream: number, payload: Buffer, isLast = false): void {
    this.#socket.arrive(frame(FrameType.DATA, isLast ? Flag.END_STREAM : 0, stream, payload));
  }

  /** Streams that the server ended by itself since it was asked last, with RESOURCE_EXHAUSTED. */
  async refused(): Promise<number[]> {
    await new Promise(setImmediate);
    return framesIn(this.#socket.take())
      .filter(({ type, payload }) => type === FrameType.HEADERS && payload.includes('grpc-status\x018'))
      .map(({ stream }) => stream);
  }

  leave(): void {
    this.#socket.emit('end');
    this.#socket.settle();
  }
}

describe('the memory that one connection of the fast lane fills', () => {
  it('is bounded when requests are complete and their calls never end', async () => {
    const hoarder = new Hoarder(METHODS.one);
    const message = grpcMessage(Buffer.alloc(MESSAGE_BYTES - 5));
    hoarder.open(1, METHODS.one);
    hoarder.data(1, message, true);
    const refused = [];

    for (let stream = 3; stream < 2 * CALLS; stream += 2) {
      hoarder.open(stream, METHODS.one);
      hoarder.data(stream, message);
      refused.push(...(await hoarder.refused()));
      assert.ok(hoarder.held.received <= hoarder.held.most);
    }

    assert.ok(refused.length > CALLS / 4, `${refused.length} calls were refused`);
    assert.equal(refused.includes(3), false);
    hoarder.data(3, Buffer.alloc(0), true);
    assert.equal(hoarder.served, 2, 'a call that was held for its end is served with it');
    hoarder.leave();
    assert.equal(hoarder.held.received, 0);
  });

  it('is bounded when messages are empty and nobody reads them', async () => {
    const hoarder = new Hoarder(METHODS.many);
    const empty = Buffer.alloc(STREAM_WINDOW_BYTES - (STREAM_WINDOW_BYTES % 5));
    const refused = [];

    for (let stream = 1; stream <= 15; stream += 2) {
      hoarder.open(stream, METHODS.many);
      hoarder.data(stream, empty);
      refused.push(...(await hoarder.refused()));
      assert.ok(hoarder.held.received <= hoarder.held.most);
    }

    assert.ok(refused.length >= 5, `${refused.length} calls were refused`);
    hoarder.leave();
    assert.equal(hoarder.held.received, 0);
  });

  it('is not filled by requests that are served at once', async () => {
    const hoarder = new Hoarder(METHODS.one);
    hoarder.open(1, METHODS.one);

    hoarder.data(1, grpcMessage(Buffer.alloc(10)), true);

    assert.equal(hoarder.served, 1);
    assert.equal(hoarder.held.received, 0);
  });
});
