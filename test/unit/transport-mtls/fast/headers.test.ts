import assert from 'node:assert/strict';
import { CallError, Metadata, Status } from '@sallyport/core';
import {
  BlockCache,
  decodeFields,
  ErrorCode,
  encodeFields,
  encodeTrailers,
  type Fields,
  ProfileViolation,
  readRequest,
  readResponse,
  requestFields,
  statusOfReset,
  timeoutText,
  toCallError,
  toMetadata,
} from '@sallyport/transport-mtls/spi';

function decode(hex: string): Fields {
  const block = Buffer.from(hex, 'hex');
  return decodeFields(block, 0, block.length);
}

function violationOf(work: () => unknown): ProfileViolation {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof ProfileViolation, String(error));
    return error;
  }
  return assert.fail('nothing was refused');
}

describe('header blocks of the fast lane', () => {
  it('are the bytes that the specification shows', () => {
    const block = encodeFields(requestFields('/demo.v1.Greeter/hello', 10_000));

    assert.equal(
      block.toString('hex'),
      '8387' +
        `0416${Buffer.from('/demo.v1.Greeter/hello').toString('hex')}` +
        `0112${Buffer.from('sallyport.internal').toString('hex')}` +
        '0002746508747261696c657273' +
        `0f1010${Buffer.from('application/grpc').toString('hex')}` +
        `000c${Buffer.from('grpc-timeout').toString('hex')}0631303030306d`,
    );
  });

  it('come back as they went', () => {
    const fields = [':status', '200', 'x-empty', '', 'x-long', 'y'.repeat(20_000), 'cookie', 'a', 'x-bin', 'AAE'];

    const block = encodeFields(fields);

    assert.deepEqual(decodeFields(block, 0, block.length), fields);
  });

  it('come back as they went, from the midst of a larger chunk', () => {
    const fields = [':path', '/a', 'a', 'b'];
    const chunk = Buffer.concat([Buffer.alloc(7, 0xff), encodeFields(fields), Buffer.alloc(7, 0xff)]);

    assert.deepEqual(decodeFields(chunk, 7, chunk.length - 7), fields);
  });

  it('take literals that are never indexed like those that are not', () => {
    assert.deepEqual(decode('1001610162'), ['a', 'b']);
  });

  it('may begin with the update that says the table is empty', () => {
    assert.deepEqual(decode('2088'), [':status', '200']);
  });

  const refused: [what: string, hex: string][] = [
    ['index 0', '80'],
    ['an index into the dynamic table', 'be'],
    ['an index without end', 'ffffffffffff'],
    ['an index whose integer is cut off', 'ff'],
    ['a literal with incremental indexing', '4001610162'],
    ['an update of the table size', '3f01'],
    ['a second update', '2020'],
    ['an update after a field', '8820'],
    ['a name in Huffman coding', '00816101 62'.replace(' ', '')],
    ['a value in Huffman coding', '0001618162'],
    ['a name beyond the block', '000561'],
    ['a value beyond the block', '0001610562'],
    ['no value', '000161'],
    ['no name', '00'],
    ['a name index beyond the static table', '0f2f0161'],
    ['a length without end', '0001617fffffffff7f'],
  ];
  for (const [what, hex] of refused) {
    it(`refuse ${what}`, () => {
      assert.equal(violationOf(() => decode(hex)).code, ErrorCode.COMPRESSION_ERROR);
    });
  }

  it('are read once as long as they repeat, and only a bounded number is remembered', () => {
    let reads = 0;
    const cache = new BlockCache((fields) => {
      reads++;
      return fields;
    });
    const get = (value: string) => {
      const block = encodeFields(['a', value]);
      return cache.get(block, 0, block.length);
    };

    assert.equal(get('1'), get('1'));
    assert.equal(reads, 1);
    for (let i = 0; i < 100; i++) get(`other ${i}`);
    assert.deepEqual(get('1'), ['a', '1']);
    assert.equal(reads, 102);
  });

  it('that are very large are not remembered', () => {
    const cache = new BlockCache((fields) => fields);
    const block = encodeFields(['a', 'x'.repeat(5000)]);

    assert.notEqual(cache.get(block, 0, block.length), cache.get(block, 0, block.length));
  });

  it('that are large are remembered up to four, the oldest forgotten first', () => {
    const cache = new BlockCache((fields) => fields);
    const get = (name: string) => {
      const block = encodeFields([name, 'x'.repeat(4000)]);
      return cache.get(block, 0, block.length);
    };

    const first = get('a');
    const others = ['b', 'c', 'd'].map(get);
    assert.equal(get('a'), first);
    get('e');

    assert.deepEqual(['b', 'c', 'd'].map(get), others);
    assert.equal(get('d'), others[2]);
    assert.notEqual(get('a'), first);
  });

  it('that are large and differ in one byte are told apart', () => {
    const cache = new BlockCache((fields) => fields);
    const get = (value: string) => {
      const block = encodeFields(['a', value]);
      // As it comes: in the midst of what else was read.
      return cache.get(Buffer.concat([Buffer.alloc(3), block, Buffer.alloc(3)]), 3, 3 + block.length);
    };
    const text = 'x'.repeat(1000);

    const values = [text, `${text.slice(1)}y`, `y${text.slice(1)}`, text];

    for (const value of values) assert.deepEqual(get(value), ['a', value]);
  });

  it('that are large and malformed are refused each time', () => {
    const cache = new BlockCache(() => assert.fail('it was read'));
    const block = encodeFields(['a', 'x'.repeat(1000)]).subarray(0, 900);

    for (const _ of [1, 2]) assert.equal(violationOf(() => cache.get(block, 0, 900)).code, ErrorCode.COMPRESSION_ERROR);
  });
});

const good = requestFields('/a.B/c', 1000);
const without = (name: string) => {
  const at = good.indexOf(name);
  return [...good.slice(0, at), ...good.slice(at + 2)];
};
const withValue = (name: string, value: string) =>
  good.map((text, i) => (i > 0 && good[i - 1] === name ? value : text));

describe('requests of the fast lane', () => {
  it('carry path, timeout and metadata', () => {
    const head = readRequest([...good, 'x-a', 'b', 'x-bin', 'AAE', 'grpc-encoding', 'identity']);

    assert.equal(head.path, '/a.B/c');
    assert.equal(head.timeoutMs, 1000);
    assert.deepEqual(head.custom, ['x-a', 'b', 'x-bin', 'AAE']);
    assert.equal(head.customBytes, 12);
    assert.equal(head.encoding, undefined);
  });

  it('without a timeout have time for ever', () => {
    assert.equal(readRequest(without('grpc-timeout')).timeoutMs, Infinity);
  });

  const refused: [what: string, fields: Fields][] = [
    ['no path', without(':path')],
    ['a path that is none', withValue(':path', 'a.B/c')],
    ['no method', without(':method')],
    ['GET', withValue(':method', 'GET')],
    ['no scheme', without(':scheme')],
    ['plain http', withValue(':scheme', 'http')],
    ['two paths', [':path', '/a', ...good]],
    ['a pseudo-header of a response', [':status', '200', ...good]],
    ['an unknown pseudo-header', [':protocol', 'x', ...good]],
    ['a pseudo-header after the fields', [...without(':path'), ':path', '/a.B/c']],
    ['no content type', without('content-type')],
    ['another content type', withValue('content-type', 'text/plain')],
    ['a content type that only begins alike', withValue('content-type', 'application/grpcx')],
    ['no te', without('te')],
    ['another te', withValue('te', 'gzip')],
    ['an upper-case name', [...good, 'X-Upper', 'a']],
    ['an empty name', [...good, '', 'a']],
    ['a name with a space', [...good, 'x a', 'a']],
    ['connection', [...good, 'connection', 'close']],
    ['transfer-encoding', [...good, 'transfer-encoding', 'chunked']],
    ['content-length', [...good, 'content-length', '5']],
    ['a line break in a value', [...good, 'x-a', 'a\r\nb: c']],
    ['a zero byte in a value', [...good, 'x-a', 'a\0']],
    ['a value outside of ASCII', [...good, 'x-a', 'ä']],
    ['bytes that are not base64', [...good, 'x-bin', 'a*b']],
    ['a timeout without a unit', withValue('grpc-timeout', '100')],
    ['a timeout of nine digits', withValue('grpc-timeout', '123456789m')],
    ['a negative timeout', withValue('grpc-timeout', '-1m')],
  ];
  for (const [what, fields] of refused) {
    it(`are malformed with ${what}`, () => {
      assert.equal(violationOf(() => readRequest(fields)).code, ErrorCode.PROTOCOL_ERROR);
    });
  }

  const timeouts: [text: string, ms: number][] = [
    ['2H', 7_200_000],
    ['3M', 180_000],
    ['4S', 4000],
    ['5m', 5],
    ['6000u', 6],
    ['7000000n', 7],
    ['0m', 0],
  ];
  for (const [text, ms] of timeouts) {
    it(`have ${ms} ms with the timeout ${text}`, () => {
      assert.equal(readRequest(withValue('grpc-timeout', text)).timeoutMs, ms);
    });
  }

  it('say their timeout in at most eight digits, never less than is left', () => {
    assert.equal(timeoutText(0.2), '1m');
    assert.equal(timeoutText(10_000.5), '10001m');
    assert.equal(timeoutText(99_999_999), '99999999m');
    assert.equal(timeoutText(100_000_000), '100000S');
    assert.equal(timeoutText(2 ** 31), '2147484S');
  });

  it('carry metadata of text and bytes, with padding or without, joined by commas or not', () => {
    const metadata = toMetadata(['a', '1', 'a', '2', 'b-bin', 'AAE=,Ag', 'b-bin', 'AAECAw']);

    assert.deepEqual(metadata.getAll('a'), ['1', '2']);
    assert.deepEqual(metadata.getAll('b-bin'), [Buffer.of(0, 1), Buffer.of(2), Buffer.of(0, 1, 2, 3)]);
  });
});

describe('answers of the fast lane', () => {
  const roundTrip = (block: Buffer) => readResponse(decodeFields(block, 0, block.length));

  it('end with a status, its message, details and metadata', () => {
    const trailers = new Metadata().set('x-a', 'b').set('x-bin', Buffer.of(1, 2, 3));
    const details = [{ typeUrl: 'type.googleapis.com/a.B', value: Buffer.from('detail') }];

    const fields = roundTrip(
      encodeTrailers({ code: Status.NOT_FOUND, message: '100 % älter\n', trailers, details }, true),
    );

    const error = toCallError(fields);
    assert.ok(error instanceof CallError);
    assert.equal(error.status, 'NOT_FOUND');
    assert.equal(error.message, '100 % älter\n');
    assert.equal(error.details[0]?.typeUrl, 'type.googleapis.com/a.B');
    assert.equal(error.metadata?.get('x-a'), 'b');
    assert.deepEqual(error.metadata?.get('x-bin'), Buffer.of(1, 2, 3));
    assert.equal(fields.httpStatus, undefined);
  });

  it('that end before they began carry everything at once', () => {
    const fields = roundTrip(encodeTrailers({ code: Status.UNAVAILABLE, message: '' }, false));

    assert.equal(fields.httpStatus, '200');
    assert.equal(fields.isGrpc, true);
    assert.equal(fields.status, Status.UNAVAILABLE);
  });

  it('take what is no percent-encoding for text', () => {
    assert.equal(readResponse(['grpc-message', '%4x %C3%A4 %']).message, '%4x ä %');
  });

  it('take an unknown status for UNKNOWN', () => {
    for (const status of ['17', '-1', '1.5', 'a', '']) {
      assert.equal(readResponse(['grpc-status', status]).status, Status.UNKNOWN);
    }
  });

  const refused: [what: string, fields: Fields][] = [
    ['a pseudo-header of a request', [':path', '/']],
    ['two statuses of HTTP', [':status', '200', ':status', '200']],
    ['a pseudo-header after a field', ['a', 'b', ':status', '200']],
    ['two statuses', ['grpc-status', '0', 'grpc-status', '1']],
    ['a line break', ['a', 'b\nc']],
  ];
  for (const [what, fields] of refused) {
    it(`are malformed with ${what}`, () => {
      assert.equal(violationOf(() => readResponse(fields)).code, ErrorCode.PROTOCOL_ERROR);
    });
  }

  it('that end with RST_STREAM have the status that gRPC gives its code', () => {
    const statuses = Object.values(ErrorCode).map((code) => statusOfReset(code));

    assert.deepEqual(statuses, [13, 13, 13, 13, 13, 13, 13, 14, 1, 13, 13, 8, 7]);
  });
});
