import assert from 'node:assert/strict';
import { Status } from '@sallyport/core';
import type { IncomingCall, ServedMethod } from '@sallyport/core/spi';
import {
  DeadlineWheel,
  ErrorCode,
  encodeFields,
  encodeTrailers,
  FastChannel,
  FloodGuard,
  fastServerLane,
  requestFields,
} from '@sallyport/transport-mtls/spi';
import { MemorySocket } from '../../../fuzz/memory-socket.js';
import { clientOptions, identity, serverLimits } from '../../../fuzz/subjects.js';
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

const KIB = 1024;
const WINDOW_BYTES = 256 * KIB;
const CALLS = 8;
/** The smallest frame that carries something: one message of two bytes. */
const TINY = grpcMessage(Buffer.from('{}'));
/** What a client of the SDK says of its windows. */
const SETTINGS = settings([
  [4, WINDOW_BYTES],
  [5, WINDOW_BYTES],
]);
const HELLO = Buffer.concat([hello().subarray(0, 24), SETTINGS]);
const LARGE = Buffer.alloc(200 * KIB);

interface Peer {
  /** Sends frames; fails if the connection ends, whoever says so. */
  readonly says: (...frames: Buffer[]) => void;
  /** Sends what `frames` gives until the connection is over; the code that it ends with. */
  readonly floods: (times: number, frames: (i: number) => Buffer) => number | undefined;
}

function peerOf(socket: MemorySocket): Peer {
  return {
    says(...frames) {
      for (const one of frames) socket.arrive(one);
      assert.ok(!socket.ended, 'the peer was taken for a flood');
    },
    floods(times, frames) {
      for (let i = 0; i < times && !socket.ended; i++) socket.arrive(frames(i));
      return socket.lastWords;
    },
  };
}

const methods: Record<string, (call: IncomingCall, request?: Uint8Array) => void> = {
  fetch: (call) => call.reply(LARGE, undefined),
  fail: (call) => call.finish({ code: Status.NOT_FOUND, message: 'no' }),
  hang: () => {},
  /** Takes a stream of messages, and answers before it has read one. */
  collect: (call) => call.reply(Buffer.from('{}'), undefined),
  /** The same, with an answer that needs more than the window of a stream. */
  drown: (call) => {
    void call.send(Buffer.alloc(300 * KIB));
    call.finish({ code: Status.OK, message: '' });
  },
  gather: () => {},
  denied: () => assert.fail('whoever may not call is not served'),
};
const STREAMS = new Set(['collect', 'drown', 'gather']);
const DENIED = { code: Status.PERMISSION_DENIED, message: 'no' } as const;

/** A server whose peer has said hello, and what the peer can do. `counted`: the bytes that it has sent. */
function server() {
  const socket = new MemorySocket();
  const limits = { ...serverLimits, maxConcurrentCalls: CALLS, maxMessageBytes: 1024 * KIB };
  const guard = new FloodGuard(limits.maxMessageBytes);
  const served = Object.entries(methods).map(([name, serve]): ServedMethod => {
    const refusal = () => (name === 'denied' ? DENIED : undefined);
    const path = `/a.B/${name}`;
    return { path, requestStream: STREAMS.has(name), responseStream: false, refusal, serve };
  });
  const lane = fastServerLane({ methods: served, events: { emit() {} } }, limits);
  const connection = lane.accept(socket.socket, { identity, guard });
  const counted = { read: 0 };
  socket.prependListener('data', (chunk: Buffer) => {
    counted.read += chunk.length;
  });
  const peer = peerOf(socket);
  peer.says(HELLO, windowUpdate(0, 1_000_000_000));
  const leave = () => {
    connection.drain(60_000);
    // The PING of its first GOAWAY comes back.
    peer.says(frame(FrameType.PING, Flag.ACK, 0, Buffer.from('drainnow')));
  };
  return { ...peer, guard, counted, leave };
}

const blocks = new Map<string, Buffer>();

function call(stream: number, name: string, flags: number = Flag.END_HEADERS): Buffer {
  const block = blocks.get(name) ?? encodeFields(requestFields(`/a.B/${name}`, 60_000));
  blocks.set(name, block);
  return frame(FrameType.HEADERS, flags, stream, block);
}

function data(stream: number, payload: Uint8Array = TINY, flags = 0): Buffer {
  return frame(FrameType.DATA, flags, stream, payload);
}

function end(stream: number, payload: Uint8Array = TINY): Buffer {
  return data(stream, payload, Flag.END_STREAM);
}

function repeat(bytes: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => bytes));
}

function stream(i: number): number {
  return 1 + 2 * i;
}

describe('a server of the fast lane takes for no flood', () => {
  it('the grants for answers that left at once', () => {
    const { says } = server();

    for (let i = 0; i < 5000; i++) {
      const id = stream(i);
      const grants = i % 40 === 39 ? windowUpdate(0, 40 * LARGE.length) : Buffer.alloc(0);
      says(call(id, 'fetch'), end(id), windowUpdate(id, LARGE.length), windowUpdate(id, LARGE.length), grants);
    }
  });

  it('messages that cross the answer, however small, until the caller knows of it', () => {
    const { says, guard, counted } = server();
    const window = repeat(data(1), Math.floor(WINDOW_BYTES / TINY.length));

    says(call(1, 'collect'), window, rstStream(1, ErrorCode.CANCEL));
    for (let i = 1; i < 5000; i++) {
      const id = stream(i);
      says(
        call(id, 'collect'),
        repeat(data(id), 100),
        i % 2 ? rstStream(id, ErrorCode.CANCEL) : end(id, new Uint8Array()),
      );
    }

    guard.account(counted.read, 0);
    assert.equal(guard.unexplained, 0);
  });

  it('what is left of messages that a frame or the window was too small for', () => {
    const { says } = server();
    const crumb = data(1, Buffer.alloc(1));
    const window = Array.from({ length: 4 }, () => [data(1, Buffer.alloc(WINDOW_BYTES / 4 - 1)), crumb]).flat();

    for (let i = 0; i < 500; i++) {
      const id = stream(i);
      says(call(id, 'collect'));
      for (const one of window) {
        one.writeUInt32BE(id, 5);
        says(one);
      }
    }
  });

  it('messages of all calls that may be under way, when all of them are answered before they arrive', () => {
    const { says } = server();

    for (let round = 0; round < 20; round++) {
      const ids = Array.from({ length: CALLS }, (_, i) => stream(round * CALLS + i));
      says(...ids.map((id) => call(id, 'collect')));
      says(...ids.map((id) => repeat(data(id), 200)), ...ids.map((id) => rstStream(id, ErrorCode.CANCEL)));
    }
  });

  it('requests of calls that it denies', () => {
    const { says } = server();

    for (let i = 0; i < 20_000; i++) says(call(stream(i), 'denied'), end(stream(i)));
    for (let i = 20_000; i < 50_000; i++) says(call(stream(i), 'denied'), rstStream(stream(i), ErrorCode.CANCEL));
  });

  it('cancellations that cross the answer', () => {
    const { says } = server();

    for (let i = 0; i < 50_000; i++)
      says(call(stream(i), 'fail'), end(stream(i)), rstStream(stream(i), ErrorCode.CANCEL));
  });

  it('calls that it refuses because handlers of cancelled ones still run', () => {
    const { says, guard, counted } = server();
    for (let i = 0; i < 2 * CALLS; i++)
      says(call(stream(i), 'hang'), end(stream(i)), rstStream(stream(i), ErrorCode.CANCEL));

    for (let i = 2 * CALLS; i < 20_000; i++) says(call(stream(i), 'hang'), end(stream(i)));

    guard.account(counted.read, 0);
    assert.equal(guard.unexplained, 0);
  });

  it('calls that are cancelled in the midst of a large message', () => {
    const { says, guard, counted } = server();
    const most = grpcMessage(Buffer.alloc(1000 * KIB)).subarray(0, 800 * KIB);

    for (let i = 0; i < 40; i++) {
      const id = stream(i);
      says(call(id, 'gather'));
      for (let at = 0; at < most.length; at += 200 * KIB) says(data(id, most.subarray(at, at + 200 * KIB)));
      says(rstStream(id, ErrorCode.CANCEL));
    }

    guard.account(counted.read, 0);
    assert.ok(!guard.isFlood, `${guard.unexplained} bytes that nothing explains`);
  });

  it('calls that cross its last GOAWAY', () => {
    const { says, leave } = server();
    says(call(1, 'gather'));
    leave();

    for (let i = 1; i <= CALLS; i++) says(call(stream(i), 'gather'), repeat(data(stream(i)), 1000));
  });

  it('messages for a call whose answer waits for its window', () => {
    const { says, guard, counted } = server();

    says(call(1, 'drown'), repeat(data(1), 20_000));

    guard.account(counted.read, 0);
    assert.equal(guard.unexplained, 0);
  });
});

describe('a server of the fast lane ends with ENHANCE_YOUR_CALM in a flood of', () => {
  const { ENHANCE_YOUR_CALM } = ErrorCode;

  const nuisances: [what: string, before: Buffer, bytes: (i: number) => Buffer, atMost: number][] = [
    ['empty DATA for a call that was answered', call(1, 'collect'), () => data(1, new Uint8Array()), 1100],
    [
      'ends of a call that was answered',
      Buffer.concat([call(1, 'collect'), end(1)]),
      () => end(1, new Uint8Array()),
      1100,
    ],
    [
      'DATA for a call that was cancelled',
      Buffer.concat([call(1, 'gather'), rstStream(1, ErrorCode.CANCEL)]),
      () => data(1),
      1100,
    ],
    [
      'DATA beyond what the window of a call that was answered allowed',
      Buffer.concat([call(1, 'collect'), ...Array.from({ length: 4 }, () => data(1, Buffer.alloc(64 * KIB)))]),
      () => data(1),
      1400,
    ],
    [
      'crumbs for a call that was answered',
      call(1, 'collect'),
      () => data(1, Buffer.alloc(1)),
      WINDOW_BYTES / 256 + 1100,
    ],
    [
      'DATA for calls that were answered before the last ones',
      Buffer.concat(Array.from({ length: CALLS + 1 }, (_, i) => call(stream(i), 'collect'))),
      () => data(1),
      1100,
    ],
    ['RST_STREAM for a call that was answered', call(1, 'collect'), () => rstStream(1, ErrorCode.CANCEL), 17_000],
    [
      'calls that are denied, and pings',
      Buffer.alloc(0),
      (i) => Buffer.concat([call(stream(i), 'denied'), ping()]),
      600,
    ],
    [
      'calls that are denied, and empty DATA',
      Buffer.alloc(0),
      (i) => Buffer.concat([call(stream(i), 'denied'), repeat(data(stream(i), new Uint8Array()), 10)]),
      110,
    ],
    [
      'calls that are denied, and WINDOW_UPDATE',
      Buffer.alloc(0),
      (i) => Buffer.concat([call(stream(i), 'denied'), windowUpdate(stream(i), 1)]),
      1100,
    ],
    [
      'calls that are reset at once while no handler ends',
      Buffer.concat(
        Array.from({ length: 2 * CALLS }, (_, i) =>
          Buffer.concat([call(stream(i), 'hang'), end(stream(i)), rstStream(stream(i), ErrorCode.CANCEL)]),
        ),
      ),
      (i) => Buffer.concat([call(stream(100 + i), 'hang'), end(stream(100 + i)), rstStream(stream(100 + i), 8)]),
      17_000,
    ],
    [
      'calls beyond the limit',
      Buffer.concat(Array.from({ length: CALLS }, (_, i) => call(stream(i), 'gather'))),
      (i) => call(stream(CALLS + i), 'gather'),
      1100,
    ],
  ];
  for (const [what, before, bytes, atMost] of nuisances) {
    it(what, () => {
      const peer = server();
      peer.says(before);

      assert.equal(peer.floods(atMost, bytes), ENHANCE_YOUR_CALM);
    });
  }

  it('calls after its last GOAWAY', () => {
    const { says, floods, leave } = server();
    says(call(1, 'gather'));
    leave();

    assert.equal(
      floods(1100, (i) => call(stream(i + 1), 'gather')),
      ENHANCE_YOUR_CALM,
    );
  });
});

const HEADERS = encodeFields([':status', '200', 'content-type', 'application/grpc']);
const TRAILERS = encodeTrailers({ code: Status.OK, message: '' }, true);

function answer(id: number): Buffer {
  return frame(FrameType.HEADERS, Flag.END_HEADERS, id, HEADERS);
}

function status(id: number): Buffer {
  return frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, id, TRAILERS);
}

/** A client whose server has said hello, and what the server can do. */
function client() {
  const socket = new MemorySocket();
  const onNothing = () => {};
  const options = { ...clientOptions, maxMessageBytes: 1024 * KIB };
  const context = { options, wheel: new DeadlineWheel(), onViolation: onNothing, onIdle: onNothing };

  const channel = new FastChannel(socket.socket, context);
  const peer = peerOf(socket);
  peer.says(SETTINGS, windowUpdate(0, 1_000_000_000));
  const open = (name: string) => {
    const begun = channel.stream({ path: `/a.B/${name}`, metadata: undefined, deadlineAt: Date.now() + 60_000 });
    begun.trailers.catch(onNothing);
    return begun;
  };
  return { ...peer, open };
}

describe('a client of the fast lane takes for no flood', () => {
  it('what the server says to a call until it knows that it was cancelled', () => {
    const { says, open } = client();
    const window = repeat(data(1), Math.floor(WINDOW_BYTES / TINY.length));

    open('list').cancel();
    says(answer(1), window, status(1), rstStream(1));
    for (let i = 1; i < 20_000; i++) {
      const id = stream(i);
      open('list').cancel();
      says(answer(id), repeat(data(id), 20), status(id), rstStream(id));
    }
  });

  it('answers to calls that it cancels faster than the server learns of it', () => {
    const { says, open } = client();
    const ids = Array.from({ length: 4000 }, (_, i) => stream(i));

    for (const _ of ids) open('list').cancel();

    says(...ids.map((id) => Buffer.concat([answer(id), data(id), status(id)])));
  });

  it('the grants for what it sent at once', () => {
    const { says, open } = client();

    for (let i = 0; i < 5000; i++) {
      const id = stream(i);
      const upload = open('collect');
      void upload.send(LARGE);
      says(windowUpdate(id, LARGE.length), windowUpdate(0, LARGE.length), status(id), rstStream(id));
    }
  });

  it('calls that the server refuses', () => {
    const { says, open } = client();

    for (let i = 0; i < 50_000; i++) {
      open('list');
      says(rstStream(stream(i), ErrorCode.REFUSED_STREAM));
    }
  });
});

describe('a client of the fast lane ends with ENHANCE_YOUR_CALM in a flood of', () => {
  const floods: [what: string, bytes: () => Buffer, atMost: number][] = [
    ['DATA beyond the window of a call that was cancelled', () => data(1, Buffer.alloc(64 * KIB)), 1100],
    ['crumbs for a call that was cancelled', () => data(1, Buffer.alloc(1)), (WINDOW_BYTES * 1.5) / 256 + 1100],
    ['headers for a call that was cancelled', () => answer(1), ((128 + 256) * KIB) / HEADERS.length + 1400],
    ['answers to a call that was cancelled', () => Buffer.concat([answer(1), status(1)]), 1100],
    ['RST_STREAM for a call that is over', () => rstStream(1), 17_000],
    ['WINDOW_UPDATE for a call that is over', () => windowUpdate(1, 1), 1100],
  ];
  for (const [what, bytes, atMost] of floods) {
    it(what, () => {
      const { floods: flood, open } = client();
      open('list').cancel();

      assert.equal(flood(atMost, bytes), ErrorCode.ENHANCE_YOUR_CALM);
    });
  }
});
