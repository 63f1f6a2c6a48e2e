import assert from 'node:assert/strict';
import { MessageAssembler, type MessageProblem } from '@sallyport/transport-mtls/spi';
import { grpcMessage } from '../../../support/h2-frames.js';

interface Taken {
  readonly messages: string[];
  readonly problems: MessageProblem[];
}

function take(assembler: MessageAssembler, chunks: readonly Buffer[]): Taken {
  const taken: Taken = { messages: [], problems: [] };
  for (const chunk of chunks) {
    assembler.push(chunk, 0, chunk.length, {
      onMessage: (message) => taken.messages.push(message.toString()),
      onMessageProblem: (problem) => taken.problems.push(problem),
    });
  }
  return taken;
}

const texts = ['one', '', 'x'.repeat(100_000), 'four', ''];
const bytes = Buffer.concat(texts.map((text) => grpcMessage(Buffer.from(text))));

describe('the assembler of messages', () => {
  for (const size of [1, 4, 5, 6, 1000, 16_384, bytes.length]) {
    it(`puts messages together from pieces of ${size} bytes`, () => {
      const chunks: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
      const assembler = new MessageAssembler(100_000);

      assert.deepEqual(take(assembler, chunks).messages, texts);
      assert.equal(assembler.heldBytes, 0);
      assert.equal(assembler.isBetweenMessages, true);
    });
  }

  it('takes memory for what has arrived, not for what was announced, and says how much', () => {
    const assembler = new MessageAssembler(256 * 1024 * 1024);
    const before = process.memoryUsage().arrayBuffers;

    take(assembler, [Buffer.from('0010000000', 'hex'), Buffer.alloc(10)]);

    assert.equal(assembler.heldBytes, 64 * 1024);
    assert.equal(assembler.isBetweenMessages, false);
    assert.ok(process.memoryUsage().arrayBuffers - before < 1024 * 1024);
  });

  it('refuses a message that is too large as soon as it says so', () => {
    const taken = take(new MessageAssembler(10), [grpcMessage(Buffer.alloc(10)), Buffer.from('000000000b', 'hex')]);

    assert.equal(taken.messages.length, 1);
    assert.deepEqual(taken.problems, ['too-large']);
  });

  it('refuses a compressed message', () => {
    const taken = take(new MessageAssembler(10), [grpcMessage(Buffer.from('a'), true)]);

    assert.deepEqual(taken, { messages: [], problems: ['compressed'] });
  });
});
