import assert from 'node:assert/strict';
import { defaultIdentityTemplate, parseIdentityTemplate } from '@sallyport/core/spi';

describe('identity template', () => {
  it('gives a service its id', () => {
    const template = parseIdentityTemplate(defaultIdentityTemplate);

    assert.equal(template.idFor('prod.acme', 'billing').toString(), 'spiffe://prod.acme/svc/billing');
  });

  it('fills other placeholders with fixed values', () => {
    const template = parseIdentityTemplate('/ns/{namespace}/sa/{service}', { namespace: 'shop' });

    assert.equal(template.idFor('td', 'cart').toString(), 'spiffe://td/ns/shop/sa/cart');
  });

  for (const [text, values, reason] of [
    ['/svc/web', {}, /\{service\} is missing/],
    ['/ns/{namespace}/sa/{service}', {}, /\{namespace\} has no value/],
    ['/ns/{toString}/sa/{service}', {}, /\{toString\} has no value/],
    ['/svc/{service}', { namespace: 'shop' }, /\{namespace\} does not occur/],
    ['/svc/{service}', { service: 'web' }, /takes no fixed value/],
    ['/ns/{namespace}/sa/{service}', { namespace: '..' }, /relative segment/],
    ['/ns/{namespace}/sa/{service}', { namespace: 'a/b' }, /cannot be part of a SPIFFE ID/],
    ['/ns/{namespace}/sa/{service}', { namespace: '{service}' }, /cannot be part of a SPIFFE ID/],
    ['/svc//{service}', {}, /empty segment/],
    ['/svc/{service}/', {}, /empty segment/],
    ['/svc/../{service}', {}, /relative segment/],
    ['/svc/{service', {}, /\{service\} is missing/],
    ['/s vc/{service}', {}, /may hold letters/],
    ['{service}', {}, /a workload has a path/],
  ] as const) {
    it(`refuses ${text} with ${JSON.stringify(values)}`, () =>
      assert.throws(() => parseIdentityTemplate(text, values), { name: 'TypeError', message: reason }));
  }

  for (const service of ['', '.', '..', 'a/b', '../admin', 'a%2fb', 'web{service}', 'wéb', 'a b', 'web?x']) {
    it(`refuses the service name ${JSON.stringify(service)}`, () => {
      const template = parseIdentityTemplate(defaultIdentityTemplate);

      assert.throws(() => template.idFor('td', service), { name: 'TypeError', message: /service name/ });
    });
  }

  it('refuses a trust domain that is none', () => {
    const template = parseIdentityTemplate(defaultIdentityTemplate);

    assert.throws(() => template.idFor('td/svc/admin', 'web/..'), TypeError);
    assert.throws(() => template.idFor('TD', 'web'), /lower-case/);
  });
});
