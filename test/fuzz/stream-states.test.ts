import assert from 'node:assert/strict';
import {
  callFields,
  Flag,
  FrameType,
  frame,
  grpcMessage,
  hpack,
  rstStream,
  windowUpdate,
} from '../support/h2-frames.js';
import { checkCommands } from './commands.js';
import { corpusOf, METHODS, type Side } from './corpus.js';
import { problemOf } from './fuzzer.js';
import type { Random } from './random.js';
import { judge } from './reference.js';

interface Command {
  readonly what: 'headers' | 'trailers' | 'message' | 'half' | 'rest' | 'empty' | 'reset' | 'window';
  readonly stream: number;
  readonly end: boolean;
  readonly path: string;
}

const MESSAGE = grpcMessage(Buffer.from('hello'));
const GREETING = {
  server: (corpusOf('server')[0] ?? []).slice(0, 3),
  client: (corpusOf('client')[0] ?? []).slice(0, 3),
};

function command(random: Random): Command {
  return {
    what: random.pick([
      'headers',
      'headers',
      'trailers',
      'message',
      'message',
      'half',
      'rest',
      'empty',
      'reset',
      'window',
    ]),
    // Mostly streams that can exist.
    stream: random.once(40) ? random.below(12) : 1 + 2 * random.below(4),
    end: random.once(3),
    path: random.pick([METHODS.one, METHODS.feed, METHODS.many, METHODS.many]),
  };
}

function frameOf(side: Side, { what, stream, end, path }: Command): Buffer {
  const data = (payload: Uint8Array) => frame(FrameType.DATA, end ? Flag.END_STREAM : 0, stream, payload);
  const flags = end ? Flag.END_HEADERS | Flag.END_STREAM : Flag.END_HEADERS;
  const response = hpack([
    [':status', '200'],
    ['content-type', 'application/grpc'],
  ]);
  const request = hpack(callFields(path));
  switch (what) {
    case 'headers':
      return frame(FrameType.HEADERS, flags, stream, side === 'server' ? request : response);
    case 'trailers':
      return frame(FrameType.HEADERS, flags, stream, hpack([['grpc-status', '0']]));
    case 'message':
      return data(MESSAGE);
    case 'half':
      return data(MESSAGE.subarray(0, 6));
    case 'rest':
      return data(MESSAGE.subarray(6));
    case 'empty':
      return data(Buffer.alloc(0));
    case 'reset':
      return rstStream(stream, 8);
    case 'window':
      return windowUpdate(stream, 1000);
  }
}

describe('the states of a stream of the fast lane', () => {
  for (const side of ['server', 'client'] satisfies Side[]) {
    for (const paced of [false, true]) {
      it(`are those of the specification at the ${side}, ${paced ? 'a frame a turn' : 'all at once'}`, async () => {
        await checkCommands({
          seed: 5,
          runs: paced ? 500 : 1500,
          length: 16,
          command,
          async run(commands) {
            const chunks = [...GREETING[side], ...commands.map((one) => frameOf(side, one))];
            assert.equal(await problemOf({ side, chunks, paced }), undefined);
          },
        });
      }).timeout(30_000);
    }
  }

  const ends: [what: string, side: Side, code: number | undefined, commands: Partial<Command>[]][] = [
    ['messages of an open stream', 'server', undefined, [{ what: 'headers' }, { what: 'message', end: true }]],
    ['a message on an idle stream', 'server', 1, [{ what: 'message' }]],
    ['a message after END_STREAM', 'server', 5, [{ what: 'headers', end: true }, { what: 'message' }]],
    ['trailers of a request', 'server', 1, [{ what: 'headers' }, { what: 'trailers', end: true }]],
    ['END_STREAM in a message', 'server', 1, [{ what: 'headers' }, { what: 'half', end: true }]],
    ['a message before its headers', 'client', 1, [{ what: 'message' }]],
    ['trailers without END_STREAM', 'client', 1, [{ what: 'headers' }, { what: 'trailers' }]],
    ['a reset', 'client', undefined, [{ what: 'reset' }, { what: 'message' }]],
  ];
  for (const [what, side, code, commands] of ends) {
    it(`${code === undefined ? 'allow' : 'refuse'} ${what} at the ${side}, says the reference`, () => {
      const defaults: Command = { what: 'empty', stream: 1, end: false, path: METHODS.many };
      const frames = commands.map((one) => frameOf(side, { ...defaults, ...one }));

      const { ends: end, codes } = judge(side, Buffer.concat([...GREETING[side], ...frames]), false);

      assert.equal(end, code === undefined ? 'never' : 'surely');
      if (code !== undefined) assert.ok(codes.has(code));
    });
  }
});
