import assert from 'node:assert/strict';
import { canonicalPath, isCanonicalPath, MalformedRequest } from '@sallyport/core/spi';

describe('the one spelling of a path', () => {
  for (const path of [
    '/',
    '/v1',
    '/v1/',
    '/v1/a.b-c_d~e',
    '/...',
    '/a.',
    '/.well-known',
    "/$&'()*+,=:@!",
    '/caf%C3%A9',
    '/a%20b',
  ]) {
    it(`${path} is it`, () => {
      assert.equal(canonicalPath(path), path);
      assert.ok(isCanonicalPath(path));
    });
  }

  for (const [path, canonical] of [
    ['/%41', '/A'],
    ['/%7euser', '/~user'],
    ['/caf%c3%a9', '/caf%C3%A9'],
    ['/a%2Bb%3a', '/a+b:'],
    ['/v1/%6frders/', '/v1/orders/'],
  ] as const) {
    it(`${path} has it in ${canonical}`, () => {
      assert.equal(canonicalPath(path), canonical);
      assert.ok(!isCanonicalPath(path));
    });
  }

  for (const [path, code] of [
    ['', 'target-malformed'],
    ['v1', 'target-malformed'],
    ['*', 'target-malformed'],
    ['http://x/', 'target-malformed'],
    ['/a b', 'target-malformed'],
    ['/a\\b', 'target-malformed'],
    ['/a;b', 'target-malformed'],
    ['/a#b', 'target-malformed'],
    ['/a?b', 'target-malformed'],
    ['/é', 'target-malformed'],
    ['/%', 'target-malformed'],
    ['/%4', 'target-malformed'],
    ['/%ff', 'target-malformed'],
    ['/%c0%ae%c0%ae/x', 'target-malformed'],
    ['//', 'target-ambiguous'],
    ['//a', 'target-ambiguous'],
    ['/a//b', 'target-ambiguous'],
    ['/.', 'target-ambiguous'],
    ['/..', 'target-ambiguous'],
    ['/a/./b', 'target-ambiguous'],
    ['/a/../b', 'target-ambiguous'],
    ['/a/%2e%2E/b', 'target-ambiguous'],
    ['/a/.%2e', 'target-ambiguous'],
    ['/a%2fb', 'target-ambiguous'],
    ['/a%5Cb', 'target-ambiguous'],
    ['/a%252fb', 'target-ambiguous'],
    ['/a%3bb', 'target-ambiguous'],
    ['/a%00', 'target-ambiguous'],
    ['/a%0d%0ab', 'target-ambiguous'],
    ['/a%7f', 'target-ambiguous'],
  ] as const) {
    it(`${JSON.stringify(path)} has none: ${code}`, () => {
      assert.throws(
        () => canonicalPath(path),
        (error: unknown) => error instanceof MalformedRequest && error.code === code,
      );
      assert.ok(!isCanonicalPath(path));
    });
  }

  it('is the same after another look at it, whatever it was', () => {
    for (let code = 0; code < 256; code++) {
      const path = `/x%${code.toString(16).padStart(2, '0')}y`;
      let canonical: string;
      try {
        canonical = canonicalPath(path);
      } catch {
        continue;
      }
      assert.equal(canonicalPath(canonical), canonical);
      assert.equal(decodeURIComponent(canonical), decodeURIComponent(path));
    }
  });
});
