import assert from 'node:assert/strict';
import { parseSpiffeId, parseTrustDomain, SpiffeId } from '@sallyport/core';

const longestDomain = 'd'.repeat(255);
const longestId = `spiffe://td/${'a'.repeat(2048 - 'spiffe://td/'.length)}`;

describe('SPIFFE ID', () => {
  for (const [text, trustDomain, segments] of [
    ['spiffe://prod.acme/svc/web', 'prod.acme', ['svc', 'web']],
    ['spiffe://a/b', 'a', ['b']],
    ['spiffe://my_domain-1.x/Ns/A.b-c_D/9', 'my_domain-1.x', ['Ns', 'A.b-c_D', '9']],
    ['spiffe://td/...', 'td', ['...']],
    [`spiffe://${longestDomain}/x`, longestDomain, ['x']],
  ] as const) {
    it(`parses ${text.slice(0, 60)}`, () => {
      const id = parseSpiffeId(text);

      assert.equal(id.trustDomain, trustDomain);
      assert.deepEqual(id.segments, segments);
      assert.equal(id.path, `/${segments.join('/')}`);
      assert.equal(id.toString(), text);
    });
  }

  it('parses an id of 2048 bytes and refuses one of 2049', () => {
    assert.equal(parseSpiffeId(longestId).toString().length, 2048);
    assert.throws(() => parseSpiffeId(`${longestId}a`), /longer than 2048 bytes/);
  });

  for (const [text, reason] of [
    ['', /must start with "spiffe:\/\/"/],
    ['svc/web', /must start with/],
    ['https://prod.acme/svc/web', /must start with/],
    ['SPIFFE://prod.acme/svc/web', /must start with/],
    [' spiffe://prod.acme/svc/web', /must start with/],
    ['spiffe:/prod.acme/svc/web', /must start with/],
    ['spiffe://', /trust domain is empty/],
    ['spiffe:///svc/web', /trust domain is empty/],
    ['spiffe://prod.acme', /a workload has a path/],
    ['spiffe://prod.acme/', /empty segment/],
    ['spiffe://prod.acme/svc/', /empty segment/],
    ['spiffe://prod.acme//svc', /empty segment/],
    ['spiffe://prod.acme/svc//web', /empty segment/],
    ['spiffe://prod.acme/.', /relative segment/],
    ['spiffe://prod.acme/svc/../web', /relative segment/],
    ['spiffe://Prod.acme/svc/web', /lower-case/],
    ['spiffe://prod.acme:8443/svc/web', /trust domain holds/],
    ['spiffe://user@prod.acme/svc/web', /trust domain holds/],
    ['spiffe://prod%2eacme/svc/web', /trust domain holds/],
    ['spiffe://pröd/svc/web', /trust domain holds/],
    [`spiffe://${longestDomain}d/x`, /longer than 255 bytes/],
    ['spiffe://prod.acme/svc%2fweb', /may hold letters/],
    ['spiffe://prod.acme/svc/web?x=1', /may hold letters/],
    ['spiffe://prod.acme/svc/web#x', /may hold letters/],
    ['spiffe://prod.acme/svc/web\n', /may hold letters/],
    ['spiffe://prod.acme/svc/web\0', /may hold letters/],
    ['spiffe://prod.acme/svc/wéb', /may hold letters/],
    ['spiffe://prod.acme/svc\\web', /may hold letters/],
    ['spiffe://prod.acme/svc/web,URI:spiffe://prod.acme/svc/admin', /may hold letters/],
    ['spiffe://prod.acme/*', /may hold letters/],
  ] as const) {
    it(`refuses ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.throws(() => parseSpiffeId(text), { name: 'TypeError', message: reason });
      assert.equal(SpiffeId.tryParse(text), undefined);
    });
  }

  it('quotes a hostile text escaped and short', () => {
    const hostile = `spiffe://td/\n[critical] forged line ${'x'.repeat(500)}`;

    assert.throws(
      () => parseSpiffeId(hostile),
      (error: Error) => !error.message.includes('\n') && error.message.length < 300,
    );
  });

  it('is equal to the same id only', () => {
    const web = parseSpiffeId('spiffe://prod.acme/svc/web');

    assert.ok(web.equals(parseSpiffeId('spiffe://prod.acme/svc/web')));
    assert.ok(!web.equals(parseSpiffeId('spiffe://prod.acme/svc/Web')));
  });

  it('prints as its text and cannot be changed', () => {
    const web = parseSpiffeId('spiffe://prod.acme/svc/web');

    assert.equal(JSON.stringify({ web }), '{"web":"spiffe://prod.acme/svc/web"}');
    assert.throws(() => Object.assign(web, { trustDomain: 'evil' }), TypeError);
    assert.throws(() => (web.segments as string[]).push('admin'), TypeError);
  });
});

describe('trust domain', () => {
  for (const text of ['prod.acme', 'spiffe://prod.acme']) {
    it(`is parsed from ${text}`, () => assert.equal(parseTrustDomain(text), 'prod.acme'));
  }

  for (const text of [
    '',
    'spiffe://',
    'Prod.acme',
    'prod.acme/',
    'spiffe://prod.acme/svc',
    'prod.acme:1',
    'a@b',
    '*',
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () =>
      assert.throws(() => parseTrustDomain(text), { name: 'TypeError', message: /is not a trust domain/ }));
  }
});
