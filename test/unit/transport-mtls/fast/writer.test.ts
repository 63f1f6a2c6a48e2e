import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Writable } from 'node:stream';
import { FrameReader, FrameWriter } from '@sallyport/transport-mtls/spi';
import { grpcMessage } from '../../../support/h2-frames.js';
import { FrameLog } from './frame-log.js';

/** A socket that only counts: what was written, and in how many writes it would have left. */
class Wire extends Writable {
  readonly chunks: Buffer[] = [];
  writes = 0;

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.writes++;
    this.chunks.push(chunk);
    done();
  }

  override _writev(all: { chunk: Buffer }[], done: () => void): void {
    this.writes++;
    this.chunks.push(...all.map(({ chunk }) => chunk));
    done();
  }

  /** As frames, and they are whole. */
  frames(): string[] {
    const log = new FrameLog();
    new FrameReader(log, false).push(Buffer.concat(this.chunks));
    return log.lines;
  }
}

function writerOn(wire: Wire): FrameWriter {
  return new FrameWriter(wire as unknown as Socket);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('the writer of frames', () => {
  it('writes every kind of frame as the reader reads it', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);

    writer.settings([[4, 0xffff_fff0]]);
    writer.settingsAck();
    writer.headers(0x7fff_ffff, Buffer.of(0x88), false);
    writer.headers(3, Buffer.of(0x88), true);
    writer.data(3, Buffer.from('hello'), 0, 10, true);
    writer.endStream(5);
    writer.reset(5, 8);
    writer.ping(Buffer.alloc(8, 1), true);
    writer.windowUpdate(0, 0x7fff_ffff);
    writer.goaway(7, 11);
    await turn();

    assert.deepEqual(wire.frames(), [
      'SETTINGS 0004fffffff0',
      'SETTINGS ACK',
      'HEADERS 2147483647 false 88',
      'HEADERS 3 true 88',
      `DATA 3 10 true ${grpcMessage(Buffer.from('hello')).toString('hex')}`,
      'DATA 5 0 true ',
      'RST_STREAM 5 8',
      'PING true 0101010101010101',
      'WINDOW_UPDATE 0 2147483647',
      'GOAWAY 7 11',
    ]);
  });

  it('writes the frames of one turn of the event loop at once', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);

    for (let i = 0; i < 100; i++) writer.data(2 * i + 1, Buffer.from('a'), 0, 6, false);
    assert.equal(wire.writes, 0);
    await turn();

    assert.equal(wire.frames().length, 100);
    assert.equal(wire.writes, 1);
  });

  it('gathers what several callbacks of a turn write, when it is told to', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);
    writer.gathersWholeTurns = true;
    const callback = () => new Promise<void>((resolve) => process.nextTick(resolve));

    writer.headers(1, Buffer.of(0x88), false);
    await callback();
    writer.headers(3, Buffer.of(0x88), false, Buffer.of(0x89));
    await callback();
    assert.equal(wire.writes, 0);
    await turn();

    assert.deepEqual(wire.frames(), ['HEADERS 1 false 88', 'HEADERS 3 false 8889']);
    assert.equal(wire.writes, 1);
  });

  it('lets small messages of one stream share a frame, up to 16 KiB', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);
    const message = Buffer.alloc(995, 7);

    for (let i = 0; i < 60; i++) writer.data(1, message, 0, 1000, false);
    await turn();

    const frames = wire.frames().map((line) => line.split(' '));
    assert.equal(Math.max(...frames.map(([, , length]) => Number(length))), 16_000);
    assert.equal(frames.map(([, , , , bytes]) => bytes).join(''), grpcMessage(message).toString('hex').repeat(60));
  });

  for (const [between, write] of Object.entries({
    'another stream': (writer: FrameWriter) => writer.data(3, Buffer.from('b'), 0, 6, false),
    'another kind of frame': (writer: FrameWriter) => writer.headers(1, Buffer.of(0x88), false),
    'a payload that is not copied': (writer: FrameWriter) => writer.data(1, Buffer.alloc(9000), 0, 9005, false),
    END_STREAM: (writer: FrameWriter) => writer.data(1, Buffer.from('b'), 0, 6, true),
  })) {
    it(`begins a frame anew after ${between}`, async () => {
      const wire = new Wire();
      const writer = writerOn(wire);

      writer.data(1, Buffer.from('a'), 0, 6, false);
      write(writer);
      writer.data(1, Buffer.from('c'), 0, 6, false);
      await turn();

      const frames = wire.frames();
      assert.equal(frames.length, 3);
      assert.equal(frames[0], `DATA 1 6 false ${grpcMessage(Buffer.from('a')).toString('hex')}`);
      assert.equal(frames[2], `DATA 1 6 false ${grpcMessage(Buffer.from('c')).toString('hex')}`);
    });
  }

  it('begins a frame anew in every turn', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);

    writer.data(1, Buffer.from('a'), 0, 6, false);
    await turn();
    writer.data(1, Buffer.from('b'), 0, 6, false);
    await turn();

    assert.equal(wire.frames().length, 2);
  });

  it('does not copy large payloads, and keeps the order around them', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);
    const large = Buffer.alloc(100_000, 1);

    writer.ping(Buffer.alloc(8), false);
    writer.data(1, large, 0, large.length + 5, false);
    writer.ping(Buffer.alloc(8), true);
    await turn();

    assert.ok(wire.chunks.some((chunk) => chunk.buffer === large.buffer));
    assert.equal(wire.writes, 1);
    assert.deepEqual(
      wire.frames().map((line) => line.slice(0, 10)),
      ['PING false', 'DATA 1 100', 'PING true '],
    );
  });

  for (const size of [1, 3, 5, 6, 100, 9000]) {
    it(`cuts a message into frames of ${size} bytes that join again`, async () => {
      const wire = new Wire();
      const writer = writerOn(wire);
      const message = Buffer.from(Array.from({ length: size > 100 ? 20_000 : 50 }, (_, i) => i));

      const total = message.length + 5;
      for (let from = 0; from < total; from += size) {
        writer.data(1, message, from, Math.min(size, total - from), false);
        writer.settingsAck();
      }
      await turn();

      const joined = wire.frames().map((line) => line.split(' ')[4] ?? '');
      assert.equal(joined.join(''), grpcMessage(message).toString('hex'));
    });
  }

  it('writes more than a slab holds, and gives it back when it rests', async () => {
    const wire = new Wire();
    const writer = writerOn(wire);

    for (let i = 0; i < 200; i++) writer.data(2 * i + 1, Buffer.alloc(1000, i), 0, 1005, false);
    await turn();
    writer.rest();
    writer.ping(Buffer.alloc(8), false);
    await turn();

    assert.equal(wire.frames().length, 201);
    assert.equal(writer.unsentBytes, 0);
  });
});
