import assert from 'node:assert/strict';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { RetryBudget, Upload } from '@sallyport/sidecar/spi';

/** A request as a target would send it, which keeps what it was given. */
function sending(highWaterMark = 1024 * 1024) {
  const body = new PassThrough({ highWaterMark });
  const heard: Buffer[] = [];
  let trailers: object | undefined | null = null;
  return {
    body,
    read: () => body.on('data', (bytes: Buffer) => heard.push(bytes)),
    text: () => Buffer.concat(heard).toString(),
    trailers: () => trailers,
    sending: {
      version: 'h2' as const,
      body,
      answer: new Promise<never>(() => {}),
      onContinue: () => {},
      abort: () => body.destroy(),
      end(fields?: object) {
        trailers = fields;
        body.end();
      },
    },
  };
}

describe('the budget of retries', () => {
  it('allows ten at once, then one for every ten requests', () => {
    const budget = new RetryBudget();
    for (let i = 0; i < 10; i++) assert.ok(budget.spend());
    assert.equal(budget.spend(), false);

    for (let i = 0; i < 11; i++) budget.earn();

    assert.equal(budget.spend(), true);
    assert.equal(budget.spend(), false);
  });

  it('saves no more than ten', () => {
    const budget = new RetryBudget();
    for (let i = 0; i < 1000; i++) budget.earn();

    let spent = 0;
    while (budget.spend()) spent++;

    assert.equal(spent, 10);
  });
});

describe('the body of a request on its way out', () => {
  it('is sent once more from its beginning, with its end and its trailers', async () => {
    const [first, second] = [sending(), sending()];
    const upload = new Upload(first.sending);
    upload.write('one ');
    first.body.destroy();
    upload.write('two');
    upload.complete({ 'x-sum': '7' });
    await once(upload, 'finish');

    second.read();
    upload.beginAgain(second.sending);
    await once(second.body, 'end');

    assert.equal(second.text(), 'one two');
    assert.deepEqual(second.trailers(), { 'x-sum': '7' });
  });

  it('goes on where it was when it begins again in the middle', async () => {
    const [first, second] = [sending(), sending()];
    const upload = new Upload(first.sending);
    upload.write('one ');

    second.read();
    upload.beginAgain(second.sending);
    upload.write('two');
    upload.complete(undefined);
    await once(second.body, 'end');

    assert.equal(second.text(), 'one two');
    assert.equal(second.trailers(), undefined);
  });

  it('takes no more than it can send again while nobody has it, and all of it arrives', async () => {
    const [first, second] = [sending(), sending()];
    const upload = new Upload(first.sending);
    const pieces = Array.from({ length: 5 }, (_, i) => String(i).repeat(20 * 1024));
    first.body.destroy();
    let taken = 0;
    for (const piece of pieces) upload.write(piece, () => taken++);
    upload.complete(undefined);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(taken, 3);
    assert.equal(upload.canBeginAgain, true);

    second.read();
    upload.beginAgain(second.sending);
    await once(second.body, 'end');

    assert.equal(second.text(), pieces.join(''));
  });

  it('goes on being taken when nobody has it and there is an answer', async () => {
    const first = sending();
    const upload = new Upload(first.sending);
    first.body.destroy();
    upload.write(Buffer.alloc(100 * 1024));
    upload.complete(undefined);

    upload.forget();

    await once(upload, 'finish');
  });

  it('is never sent without its beginning', () => {
    const [first, second] = [sending(), sending()];
    const upload = new Upload(first.sending);
    upload.write(Buffer.alloc(100 * 1024));
    first.body.destroy();

    assert.throws(() => upload.beginAgain(second.sending), { name: 'TargetFailure', kind: 'unreachable' });
  });

  it('cannot begin again when it was longer than 64 KiB, or when there is an answer', () => {
    const long = new Upload(sending().sending);
    long.write(Buffer.alloc(64 * 1024));
    assert.equal(long.canBeginAgain, true);
    long.write('x');
    assert.equal(long.canBeginAgain, false);

    const answered = new Upload(sending().sending);
    answered.write('one');
    answered.forget();
    assert.equal(answered.canBeginAgain, false);
  });

  it('waits for a slow reader, and for one that is gone no longer', async () => {
    const slow = sending(1);
    const upload = new Upload(slow.sending);
    let written = 0;
    for (let i = 0; i < 3; i++) upload.write('piece', () => written++);
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(written < 3, `${written} of 3 were taken`);

    slow.body.destroy();
    upload.complete(undefined);
    await once(upload, 'finish');

    assert.equal(written, 3);
  });
});
