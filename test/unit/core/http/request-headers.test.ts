import assert from 'node:assert/strict';
import { isClaim, isHopByHop, MalformedRequest, namedByConnection, readHeaders } from '@sallyport/core/spi';

function isRefused(read: () => unknown, code: string): void {
  assert.throws(read, (error: unknown) => error instanceof MalformedRequest && error.code === code);
}

describe('the headers of a request', () => {
  it('have one reading: by lower-case name, lists joined, cookies too, pseudo-headers left out', () => {
    const seen = readHeaders([
      ':path',
      '/',
      'Accept',
      'a',
      'ACCEPT',
      'b',
      'Cookie',
      'c=1',
      'cookie',
      'd=2',
      '__proto__',
      'e',
    ]);

    assert.deepEqual(
      { ...seen },
      Object.fromEntries([
        ['accept', 'a, b'],
        ['cookie', 'c=1; d=2'],
        ['__proto__', 'e'],
      ]),
    );
    assert.equal(Object.getPrototypeOf(seen), null);
  });

  for (const name of ['host', 'content-length', 'transfer-encoding', 'authorization', 'content-type', 'upgrade']) {
    it(`are refused where ${name} stands twice`, () => {
      isRefused(() => readHeaders([name, 'a', name.toUpperCase(), 'a']), 'header-repeated');
    });
  }

  it('are refused where they tell the length in two ways', () => {
    isRefused(() => readHeaders(['Content-Length', '1', 'Transfer-Encoding', 'chunked']), 'framing-ambiguous');
  });

  it('are refused where they name a coding of the body that nobody takes off', () => {
    for (const coding of ['gzip, chunked', 'gzip', 'identity', 'chunked, chunked', '']) {
      isRefused(() => readHeaders(['Transfer-Encoding', coding]), 'transfer-coding-unknown');
    }
    assert.equal(readHeaders(['Transfer-Encoding', 'Chunked'])['transfer-encoding'], 'Chunked');
  });

  it('are of one connection where Connection names them, which must not name what the message needs', () => {
    assert.deepEqual(namedByConnection(undefined), []);
    assert.deepEqual(namedByConnection('Close, X-Mine ,x-other'), ['close', 'x-mine', 'x-other']);
    for (const name of ['host', 'Content-Length', 'authorization', 'cookie']) {
      isRefused(() => namedByConnection(`close, ${name}`), 'header-hidden');
    }
    assert.ok(isHopByHop('transfer-encoding') && !isHopByHop('content-length'));
  });

  for (const name of [
    'x-sallyport-peer',
    'x_sallyport_peer',
    'x.sallyport.peer',
    'x-sallyport_peer',
    'sallyport-anything',
    'x-forwarded-client-cert',
    'x_forwarded_for',
    'forwarded',
    'x-http-method-override',
    'x-original-url',
    'remote_user',
    'grpc-status',
    'proxy',
  ]) {
    it(`${name} is a claim`, () => assert.ok(isClaim(name)));
  }

  for (const name of [
    'accept',
    'x-own',
    'x_own',
    'user-agent',
    'authorization',
    'cookie',
    'x-request-id',
    'xsallyportpeer',
  ]) {
    it(`${name} is none`, () => assert.ok(!isClaim(name)));
  }
});
