import assert from 'node:assert/strict';
import { ErrorCode, FrameReader, ProfileViolation } from '@sallyport/transport-mtls/spi';
import {
  Flag,
  FrameType,
  frame,
  grpcMessage,
  hello,
  ping,
  rstStream,
  settings,
  settingsAck,
  windowUpdate,
} from '../../../support/h2-frames.js';
import { FrameLog } from './frame-log.js';

const block = Buffer.from('838604', 'hex');
const goaway = frame(0x7, 0, 0, Buffer.concat([Buffer.from('0000000500000002', 'hex'), Buffer.from('why')]));

const conversation = Buffer.concat([
  hello(),
  settings([
    [1, 0],
    [4, 1000],
  ]),
  settingsAck(),
  windowUpdate(0, 70_000),
  frame(FrameType.HEADERS, Flag.END_HEADERS, 1, block),
  frame(FrameType.DATA, 0, 1, grpcMessage(Buffer.alloc(300, 7))),
  frame(FrameType.DATA, 0, 1),
  windowUpdate(1, 5),
  ping(),
  frame(FrameType.PING, Flag.ACK, 0, Buffer.alloc(8, 1)),
  frame(FrameType.DATA, Flag.END_STREAM, 1, grpcMessage(Buffer.from('x'))),
  rstStream(3, 8),
  frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 5, block),
  goaway,
]);

function read(chunks: readonly Buffer[]): string[] {
  const log = new FrameLog();
  const reader = new FrameReader(log, true);
  for (const chunk of chunks) reader.push(chunk);
  return log.lines;
}

function split(bytes: Buffer, size: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
  return chunks;
}

describe('the reader of frames', () => {
  it('finds every frame in one piece', () => {
    const lines = read([conversation]);

    assert.deepEqual(
      lines.map((line) => line.split(' ')[0]),
      [
        ...['SETTINGS', 'SETTINGS', 'SETTINGS', 'WINDOW_UPDATE', 'HEADERS', 'DATA', 'DATA', 'WINDOW_UPDATE', 'PING'],
        ...['PING', 'DATA', 'RST_STREAM', 'HEADERS', 'GOAWAY'],
      ],
    );
    assert.ok(lines.includes('RST_STREAM 3 8'));
    assert.ok(lines.includes('HEADERS 5 true 838604'));
    assert.ok(lines.includes('GOAWAY 5 2'));
    assert.ok(lines.includes('WINDOW_UPDATE 0 70000'));
  });

  for (const size of [1, 2, 3, 7, 9, 10, 64, 311]) {
    it(`finds the same frames in pieces of ${size} bytes`, () => {
      assert.deepEqual(read(split(conversation, size)), read([conversation]));
    });
  }

  it('finds the same frames wherever the bytes are cut in two', () => {
    const whole = read([conversation]);

    for (let at = 0; at <= conversation.length; at++) {
      assert.deepEqual(read([conversation.subarray(0, at), conversation.subarray(at)]), whole, `cut at ${at}`);
    }
  });

  it('looks at nothing once it was stopped, not even the rest of the chunk', () => {
    const log = new FrameLog();
    const reader = new FrameReader(log, false);
    log.onSettingsAck = () => reader.stop();

    reader.push(Buffer.concat([ping(), settingsAck(), ping()]));
    reader.push(ping());

    assert.equal(log.lines.length, 1);
  });

  const { PROTOCOL_ERROR, FRAME_SIZE_ERROR } = ErrorCode;
  const refused: [what: string, code: number, bytes: Buffer][] = [
    ['PRIORITY', PROTOCOL_ERROR, frame(0x2, 0, 1, Buffer.alloc(5))],
    ['PUSH_PROMISE', PROTOCOL_ERROR, frame(0x5, Flag.END_HEADERS, 1, Buffer.alloc(4))],
    ['CONTINUATION', PROTOCOL_ERROR, frame(0x9, Flag.END_HEADERS, 1)],
    ['a frame of an unknown type', PROTOCOL_ERROR, frame(0x42, 0, 0)],
    ['HEADERS without END_HEADERS', PROTOCOL_ERROR, frame(FrameType.HEADERS, 0, 1, block)],
    ['HEADERS with padding', PROTOCOL_ERROR, frame(FrameType.HEADERS, Flag.END_HEADERS | 0x8, 1, block)],
    ['HEADERS with a priority', PROTOCOL_ERROR, frame(FrameType.HEADERS, Flag.END_HEADERS | 0x20, 1, block)],
    ['HEADERS on stream 0', PROTOCOL_ERROR, frame(FrameType.HEADERS, Flag.END_HEADERS, 0, block)],
    ['HEADERS beyond 128 KiB', FRAME_SIZE_ERROR, header(128 * 1024 + 1, FrameType.HEADERS, Flag.END_HEADERS, 1)],
    ['DATA with padding', PROTOCOL_ERROR, frame(FrameType.DATA, 0x8, 1, Buffer.alloc(2))],
    ['DATA on stream 0', PROTOCOL_ERROR, frame(FrameType.DATA, 0, 0)],
    ['DATA beyond 256 KiB', FRAME_SIZE_ERROR, header(256 * 1024 + 1, FrameType.DATA, 0, 1)],
    ['RST_STREAM on stream 0', PROTOCOL_ERROR, rstStream(0)],
    ['RST_STREAM of 5 bytes', FRAME_SIZE_ERROR, frame(FrameType.RST_STREAM, 0, 1, Buffer.alloc(5))],
    ['SETTINGS on a stream', PROTOCOL_ERROR, frame(FrameType.SETTINGS, 0, 1)],
    ['SETTINGS of 5 bytes', FRAME_SIZE_ERROR, frame(FrameType.SETTINGS, 0, 0, Buffer.alloc(5))],
    ['SETTINGS of 33 entries', FRAME_SIZE_ERROR, frame(FrameType.SETTINGS, 0, 0, Buffer.alloc(33 * 6))],
    ['an acknowledgement with SETTINGS', FRAME_SIZE_ERROR, frame(FrameType.SETTINGS, Flag.ACK, 0, Buffer.alloc(6))],
    ['PING on a stream', PROTOCOL_ERROR, frame(FrameType.PING, 0, 1, Buffer.alloc(8))],
    ['PING of 4 bytes', FRAME_SIZE_ERROR, frame(FrameType.PING, 0, 0, Buffer.alloc(4))],
    ['GOAWAY on a stream', PROTOCOL_ERROR, frame(FrameType.GOAWAY, 0, 1, Buffer.alloc(8))],
    ['GOAWAY of 7 bytes', FRAME_SIZE_ERROR, frame(FrameType.GOAWAY, 0, 0, Buffer.alloc(7))],
    ['GOAWAY beyond 1 KiB', FRAME_SIZE_ERROR, header(1025, FrameType.GOAWAY, 0, 0)],
    ['WINDOW_UPDATE of 3 bytes', FRAME_SIZE_ERROR, frame(FrameType.WINDOW_UPDATE, 0, 1, Buffer.alloc(3))],
    ['a frame with the reserved bit', PROTOCOL_ERROR, frame(FrameType.PING, 0, 0x8000_0000, Buffer.alloc(8))],
  ];
  for (const [what, code, bytes] of refused) {
    it(`refuses ${what}`, () => {
      const log = new FrameLog();
      const violation = violationOf(() => new FrameReader(log, false).push(bytes));

      assert.equal(violation.code, code);
      assert.deepEqual(log.lines, []);
    });

    it(`refuses ${what}, byte by byte`, () => {
      const reader = new FrameReader(new FrameLog(), false);
      const violation = violationOf(() => {
        for (const byte of split(bytes, 1)) reader.push(byte);
      });

      assert.equal(violation.code, code);
    });
  }

  it('refuses a client that does not begin with the preface, at the first wrong byte', () => {
    const wrong = hello();
    wrong[10] = 0x21;
    const reader = new FrameReader(new FrameLog(), true);
    reader.push(wrong.subarray(0, 10));

    assert.equal(violationOf(() => reader.push(wrong.subarray(10, 11))).code, PROTOCOL_ERROR);
  });
});

/** The header of a frame whose payload never comes. */
function header(length: number, type: number, flags: number, stream: number): Buffer {
  const bytes = frame(type, flags, stream);
  bytes.writeUIntBE(length, 0, 3);
  return bytes;
}

function violationOf(work: () => void): ProfileViolation {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof ProfileViolation, String(error));
    return error;
  }
  return assert.fail('nothing was refused');
}
