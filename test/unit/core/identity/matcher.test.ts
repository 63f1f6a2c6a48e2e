import assert from 'node:assert/strict';
import { exactly, matching, memberOf, oneOf, parseSpiffeId } from '@sallyport/core';
import { parsePattern } from '@sallyport/core/spi';

const web = parseSpiffeId('spiffe://prod.acme/svc/web');

describe('identity matcher', () => {
  it('exactly() takes the one id and no other', () => {
    const matcher = exactly('spiffe://prod.acme/svc/web');

    assert.ok(matcher.matches(web));
    for (const other of ['spiffe://prod.acme/svc/web2', 'spiffe://prod.acme/svc', 'spiffe://test.acme/svc/web']) {
      assert.ok(!matcher.matches(parseSpiffeId(other)), other);
    }
    assert.equal(matcher.trustDomain, 'prod.acme');
    assert.equal(matcher.description, 'spiffe://prod.acme/svc/web');
  });

  it('oneOf() takes its members and no other', () => {
    const matcher = oneOf([web, 'spiffe://prod.acme/svc/app']);

    assert.ok(matcher.matches(web));
    assert.ok(matcher.matches(parseSpiffeId('spiffe://prod.acme/svc/app')));
    assert.ok(!matcher.matches(parseSpiffeId('spiffe://prod.acme/svc/ap')));
  });

  it('oneOf() refuses an empty list, which would mean nobody', () => assert.throws(() => oneOf([]), /at least one/));

  it('oneOf() refuses ids of two trust domains', () =>
    assert.throws(() => oneOf([web, 'spiffe://test.acme/svc/web']), /different trust domains/));

  it('memberOf() takes the whole trust domain and no other', () => {
    const matcher = memberOf('prod.acme');

    assert.ok(matcher.matches(web));
    assert.ok(!matcher.matches(parseSpiffeId('spiffe://evil.prod.acme/svc/web')));
    assert.throws(() => memberOf('*'), /is not a trust domain/);
  });

  for (const [pattern, yes, no] of [
    ['spiffe://td/svc/web', ['/svc/web'], ['/svc/webs', '/svc', '/svc/web/x']],
    ['spiffe://td/svc/*', ['/svc/web', '/svc/app'], ['/svc', '/svc/web/x', '/other/web']],
    ['spiffe://td/*/web', ['/svc/web'], ['/svc/app', '/web']],
    ['spiffe://td/ns/*/sa/*', ['/ns/shop/sa/cart'], ['/ns/shop/sa', '/ns/shop/sb/cart']],
    ['spiffe://td/svc/**', ['/svc/web', '/svc/web/a/b'], ['/svc', '/svcs/web']],
    ['spiffe://td/ns/*/**', ['/ns/shop/sa', '/ns/shop/sa/cart'], ['/ns/shop']],
    ['spiffe://td/**', ['/a', '/a/b'], []],
  ] as const) {
    it(`${pattern} covers what it says and nothing else`, () => {
      const matcher = matching(pattern);

      for (const path of yes) assert.ok(matcher.matches(parseSpiffeId(`spiffe://td${path}`)), path);
      for (const path of no) assert.ok(!matcher.matches(parseSpiffeId(`spiffe://td${path}`)), path);
      for (const path of yes) assert.ok(!matcher.matches(parseSpiffeId(`spiffe://td2${path}`)), 'foreign domain');
    });
  }

  for (const pattern of [
    '',
    '*',
    '**',
    'spiffe://*',
    'spiffe://*/svc/web',
    'spiffe://*.acme/svc/web',
    'spiffe://td',
    'spiffe://td/',
    'spiffe://td/svc/',
    'spiffe://td/**/web',
    'spiffe://td/**/**',
    'spiffe://td/web-*',
    'spiffe://td/***',
    'spiffe://td/svc/../web',
    'spiffe://td/svc/[a-z]',
    'spiffe://td/svc/web\n',
    'spiffe://TD/svc/web',
    '!spiffe://td/svc/web',
    '/svc/web',
  ]) {
    it(`refuses the pattern ${JSON.stringify(pattern)}`, () =>
      assert.throws(() => matching(pattern), { name: 'TypeError' }));
  }

  it('knows a pattern that names nobody in particular', () => {
    for (const wide of ['spiffe://td/**', 'spiffe://td/*', 'spiffe://td/*/*', 'spiffe://td/*/**']) {
      assert.ok(parsePattern(wide).namesNobody, wide);
    }
    for (const narrow of ['spiffe://td/svc/*', 'spiffe://td/*/web', 'spiffe://td/svc/**']) {
      assert.ok(!parsePattern(narrow).namesNobody, narrow);
    }
  });
});
