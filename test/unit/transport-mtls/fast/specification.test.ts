import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeFields, encodeFields, encodeTrailers, FrameReader, requestFields } from '@sallyport/transport-mtls/spi';
import { root } from '../../../support/repository.js';
import { FrameLog } from './frame-log.js';

/** The examples of the specification, without the words beside the bytes. */
const examples = [...readFileSync(join(root, 'docs/spec/fast-lane.md'), 'utf8').matchAll(/```hex\n(.*?)```/gs)].map(
  ([, text = '']) =>
    Buffer.from(
      text
        .split('\n')
        .flatMap((line) => /^\s*((?:[0-9a-f]{2}\s+)*[0-9a-f]{2})(?:\s{2,}[^0-9a-f].*|\s*)$/.exec(line)?.[1] ?? [])
        .join('')
        .replace(/\s/g, ''),
      'hex',
    ),
);

function framesOf(example: number, isClient = false): string[] {
  const log = new FrameLog();
  new FrameReader(log, isClient).push(examples[example] ?? Buffer.alloc(0));
  return log.lines;
}

function fieldsOf(line: string | undefined): readonly string[] {
  const block = Buffer.from(line?.split(' ')[3] ?? '', 'hex');
  return decodeFields(block, 0, block.length);
}

describe('the examples in the specification of the fast lane', () => {
  it('are all there', () => {
    assert.equal(examples.length, 5);
  });

  it('greet as our client does', () => {
    assert.deepEqual(framesOf(0, true), [
      'SETTINGS 000100000000000200000000000300000000000400040000000500040000000600010000',
      `WINDOW_UPDATE 0 ${16 * 1024 * 1024 - 65_535}`,
    ]);
  });

  it('call as our client does', () => {
    const [headers, data] = framesOf(1);

    assert.equal(
      headers?.split(' ')[3],
      encodeFields(requestFields('/demo.greeter.v1.Greeter/hello', 800)).toString('hex'),
    );
    assert.equal(data, `DATA 1 19 true 000000000e${Buffer.from('{"name":"Ada"}').toString('hex')}`);
  });

  it('answer as our server does', () => {
    const [headers, data, trailers] = framesOf(2);

    assert.deepEqual(fieldsOf(headers), [':status', '200', 'content-type', 'application/grpc']);
    assert.equal(data, `DATA 1 25 false 0000000014${Buffer.from('{"greeting":"Hello"}').toString('hex')}`);
    assert.equal(trailers, `HEADERS 1 true ${encodeTrailers({ code: 0, message: '' }, true).toString('hex')}`);
  });

  it('deny and cancel as we do', () => {
    assert.deepEqual(framesOf(3), [
      `HEADERS 1 true ${encodeTrailers({ code: 7, message: 'no' }, false).toString('hex')}`,
    ]);
    assert.deepEqual(framesOf(4), ['RST_STREAM 1 8']);
  });
});
