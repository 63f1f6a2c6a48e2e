import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { uploadedMessages } from '@sallyport/gateway/spi';

const limits = {
  maxBodyBytes: 1024 ** 2,
  maxStreamBytes: 64 * 1024 ** 2,
  maxJsonDepth: 32,
  maxJsonKeys: 10_000,
  streamTimeoutMs: 3_600_000,
  streamIdleTimeoutMs: 30_000,
  heartbeatMs: 15_000,
};

async function messagesIn(parts: Iterable<Buffer>): Promise<unknown[]> {
  const messages: unknown[] = [];
  for await (const message of uploadedMessages(Readable.from(parts), limits)) messages.push(message);
  return messages;
}

function* partsOf(text: string, size: number): Generator<Buffer> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe('the messages of a body', () => {
  it('are the same however the body is cut', async () => {
    const text = '{"n":1}\r\n\n  {"n":"ü€"}\n{"n":[3,\t4]}\n \n{"n":5}';

    for (let size = 1; size <= text.length + 4; size++) {
      assert.deepEqual(await messagesIn(partsOf(text, size)), [{ n: 1 }, { n: 'ü€' }, { n: [3, 4] }, { n: 5 }]);
    }
  });

  it('T57 are not dearer byte by byte: what has come of a line is not copied and searched again for each', async function () {
    this.timeout(10_000);
    const long = 'y'.repeat(500_000);

    // Copied for each byte this would be 125 GB.
    assert.deepEqual(await messagesIn(partsOf(`"${long}"\n`, 1)), [long]);
  });
});
