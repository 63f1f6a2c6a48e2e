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

/** Which side of a connection reads the frames. */
export type Side = 'server' | 'client';

/** One request, one answer; three messages as the answer; messages both ways. */
export const METHODS = { one: '/fuzz.v1.Fuzz/one', feed: '/fuzz.v1.Fuzz/feed', many: '/fuzz.v1.Fuzz/many' } as const;

/** What the server under test takes. */
export const LIMITS = { calls: 8, messageBytes: 64 * 1024, metadataBytes: 16 * 1024 } as const;

/** Calls that the client under test has made, by stream. */
export const CLIENT_CALLS: readonly (readonly [stream: number, unary: boolean])[] = [
  [1, true],
  [3, false],
  [5, false],
  [7, true],
];

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const SMALL = grpcMessage(Buffer.from('{"text":"hi"}'));
const LARGE = grpcMessage(Buffer.alloc(40_000, 'L'));
const FIXED = settings([
  [1, 0],
  [2, 0],
  [3, 0],
  [4, 262_144],
  [5, 262_144],
  [6, 65_536],
]);
const WIDE = windowUpdate(0, 16_711_681);
const RESPONSE: HeaderFields = [
  [':status', '200'],
  ['content-type', 'application/grpc'],
];
/** The request of the specification's example, by the static table. */
const INDEXED = Buffer.concat([
  Buffer.from('838704', 'hex'),
  Buffer.of(METHODS.one.length),
  Buffer.from(METHODS.one),
  Buffer.from('0002746508747261696c6572730f10106170706c69636174696f6e2f67727063', 'hex'),
  Buffer.from('000c677270632d74696d656f7574043830306d', 'hex'),
]);

/** Valid frame sequences, one part a frame: the ground that mutations start from. */
export function corpusOf(side: Side): readonly (readonly Buffer[])[] {
  return side === 'server' ? requests.map((parts) => [PREFACE, FIXED, WIDE, ...parts]) : answers.map(welcome);
}

const requests: readonly (readonly Buffer[])[] = [
  [open(1), data(1, SMALL, true)],
  [frame(FrameType.HEADERS, Flag.END_HEADERS, 1, INDEXED), data(1, SMALL, true), settingsAck()],
  [open(1), data(1, SMALL, true), open(3), data(3, SMALL, true), open(5), data(5, SMALL, true)],
  [open(1), open(3), data(3, SMALL, true), data(1, SMALL, true)],
  [open(1), data(1, SMALL.subarray(0, 3)), data(1, SMALL.subarray(3)), data(1, Buffer.alloc(0), true)],
  [open(1, METHODS.feed), data(1, SMALL, true), windowUpdate(1, 1000), windowUpdate(0, 1000)],
  [open(1, METHODS.many), data(1, SMALL), data(1, SMALL), data(1, Buffer.alloc(0), true)],
  [open(1, METHODS.many), data(1, Buffer.concat([SMALL, SMALL, SMALL])), data(1, SMALL, true)],
  [open(1, METHODS.many), data(1, SMALL), rstStream(1, 8), open(3), data(3, SMALL, true)],
  [open(1, METHODS.many), open(3, METHODS.many), data(1, SMALL), data(3, SMALL), rstStream(3, 8), data(1, SMALL, true)],
  [open(1), rstStream(1, 8), open(3), rstStream(3, 8), open(5), rstStream(5, 8)],
  [ping(), open(1), ping(), data(1, SMALL, true), ping()],
  [open(1), data(1, SMALL, true), goaway(0, 0)],
  [open(1, METHODS.many), goaway(0, 0), data(1, SMALL, true)],
  [goaway(0, 2)],
  [settings([[4, 10]]), open(1), data(1, SMALL, true), windowUpdate(1, 100), settings([[4, 65_535]])],
  [settings([[4, 0]]), open(1, METHODS.feed), data(1, SMALL, true), windowUpdate(1, 40), rstStream(1, 8)],
  [
    open(1, METHODS.one, [
      ['x-trace', 'a1'],
      ['blob-bin', 'AAEC/w'],
    ]),
    data(1, SMALL, true),
  ],
  [
    open(1, METHODS.one, [
      ['grpc-timeout', '800m'],
      ['user-agent', 'fuzz'],
    ]),
    data(1, SMALL, true),
  ],
  [open(1, METHODS.one, [['grpc-encoding', 'gzip']]), data(1, SMALL, true)],
  [open(1, '/fuzz.v1.Fuzz/none'), data(1, SMALL, true)],
  [open(1, METHODS.one, [['x-large', 'm'.repeat(30_000)]]), data(1, SMALL, true)],
  [open(1), data(1, Buffer.concat([SMALL, SMALL]), true), data(1, SMALL)],
  [open(1), data(1, Buffer.from('0100000001ff', 'hex'), true)],
  [open(1), data(1, Buffer.from('00ffffffff', 'hex'))],
  [open(1), data(1, LARGE, true)],
  [open(1, METHODS.many), data(1, LARGE), data(1, LARGE), data(1, LARGE), data(1, LARGE, true)],
  [...[1, 3, 5, 7, 9, 11, 13, 15, 17].map((id) => open(id, METHODS.many)), rstStream(1), rstStream(3), open(19)],
  [frame(FrameType.PING, Flag.ACK, 0, Buffer.from('drainnow')), open(1), data(1, SMALL, true)],
  [open(1, METHODS.many), data(1, Buffer.alloc(0)), data(1, Buffer.alloc(0)), data(1, SMALL.subarray(0, 1))],
];

const answers: readonly (readonly Buffer[])[] = [
  [head(1), data(1, SMALL), trailers(1), head(7), data(7, SMALL), trailers(7)],
  [head(3), data(3, SMALL), data(3, SMALL), data(3, SMALL), trailers(3)],
  [head(5), data(5, SMALL), head(1), data(5, SMALL), data(1, SMALL), trailers(1), trailers(5)],
  [trailersOnly(1), trailersOnly(3), trailersOnly(5), trailersOnly(7)],
  [head(1), data(1, SMALL.subarray(0, 7)), data(1, SMALL.subarray(7)), trailers(1)],
  [
    head(1, [
      ['x-a', 'b'],
      ['x-bin', 'AAEC'],
    ]),
    data(1, SMALL),
    trailers(1, '0', [['x-end', 'c']]),
  ],
  [
    head(1),
    trailers(1, '7', [
      ['grpc-message', 'n%20o'],
      ['grpc-status-details-bin', 'CAcSAm5v'],
    ]),
  ],
  [rstStream(1, 8), rstStream(3, 7), rstStream(5, 0xb), rstStream(7, 0)],
  [goaway(5, 0), head(1), data(1, SMALL), trailers(1), head(3), trailers(3), head(5), trailers(5)],
  [goaway(0x7fff_ffff, 0), ping(), head(1), data(1, SMALL), trailers(1), goaway(7, 0)],
  [goaway(0, 0)],
  [head(3), goaway(7, 0xb)],
  [ping(), settingsAck(), settings([[3, 1]]), ping(), windowUpdate(0, 100), windowUpdate(5, 100)],
  [head(1), data(1, LARGE), trailers(1)],
  [head(3), data(3, LARGE), data(3, LARGE), data(3, LARGE), trailers(3)],
  [head(1), data(1, Buffer.concat([SMALL, SMALL])), trailers(1)],
  [head(1), data(1, Buffer.from('0100000001ff', 'hex')), head(3), data(3, Buffer.from('00ffffffff', 'hex'))],
  [head(1), data(1, SMALL, true), head(7, [['grpc-encoding', 'gzip']])],
  [
    frame(
      FrameType.HEADERS,
      5,
      1,
      hpack([
        [':status', '502'],
        ['content-type', 'text/html'],
      ]),
    ),
  ],
  [
    frame(
      FrameType.HEADERS,
      5,
      1,
      Buffer.from('880f10106170706c69636174696f6e2f67727063000b677270632d7374617475730137', 'hex'),
    ),
  ],
];

function welcome(parts: readonly Buffer[]): readonly Buffer[] {
  return [FIXED, WIDE, settingsAck(), ...parts];
}

function open(stream: number, path: string = METHODS.one, more: HeaderFields = []): Buffer {
  return frame(FrameType.HEADERS, Flag.END_HEADERS, stream, hpack(callFields(path, more)));
}

function head(stream: number, more: HeaderFields = []): Buffer {
  return frame(FrameType.HEADERS, Flag.END_HEADERS, stream, hpack([...RESPONSE, ...more]));
}

function trailers(stream: number, status = '0', more: HeaderFields = []): Buffer {
  return frame(FrameType.HEADERS, 5, stream, hpack([['grpc-status', status], ...more]));
}

function trailersOnly(stream: number): Buffer {
  return frame(FrameType.HEADERS, 5, stream, hpack([...RESPONSE, ['grpc-status', '5']]));
}

function data(stream: number, payload: Uint8Array, endStream = false): Buffer {
  return frame(FrameType.DATA, endStream ? Flag.END_STREAM : 0, stream, payload);
}

function goaway(lastStream: number, code: number): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeUInt32BE(lastStream, 0);
  payload.writeUInt32BE(code, 4);
  return frame(FrameType.GOAWAY, 0, 0, payload);
}
