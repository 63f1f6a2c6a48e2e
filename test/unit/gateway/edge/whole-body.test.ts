import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { wholeBody } from '@sallyport/gateway/spi';

describe('a body that is read as one piece', () => {
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();
  const code = (name: string) => (error: unknown) => (error as { problem: { code: string } }).problem.code === name;

  it('is what has come, however it was cut', async () => {
    const body = new PassThrough();
    const whole = wholeBody(body, 1000);

    for (const piece of ['{"a"', ':', '1', '}', ' '.repeat(500)]) body.write(piece);
    body.end();

    assert.equal(text(await whole), `{"a":1}${' '.repeat(500)}`);
    const none = wholeBody(new PassThrough().end(), 10);
    assert.equal(text(await none), '');
  });

  it('keeps none of its pieces: each would take a hundred times its size', async () => {
    const body = new PassThrough();
    const whole = wholeBody(body, 1000);
    const pieces = ['a', 'b', 'c'].map((letter) => Buffer.from(letter));

    for (const piece of pieces) body.emit('data', piece);
    for (const piece of pieces) piece.fill('x');
    body.emit('end');

    assert.equal(text(await whole), 'abc');
  });

  it('is refused when it is too long, and when it breaks off', async () => {
    const long = new PassThrough();
    const tooLong = wholeBody(long, 3);
    long.write('ab');
    long.write('cd');
    await assert.rejects(tooLong, code('body-too-large'));

    const reset = new PassThrough();
    const broken = wholeBody(reset, 100);
    reset.write('{}');
    reset.emit('aborted');
    reset.end();
    await assert.rejects(broken, code('body-malformed'));
    assert.deepEqual(reset.listenerCount('data'), 0);
  });
});
