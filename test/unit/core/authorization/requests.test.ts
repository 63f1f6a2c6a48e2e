import assert from 'node:assert/strict';
import { allow, deny, parseSpiffeId, type Rule } from '@sallyport/core';
import { Authorizer, parseRules } from '@sallyport/core/spi';

const web = parseSpiffeId('spiffe://prod.acme/svc/web');
const from = web.toString();

function allows(rules: readonly Rule[], asked: string): boolean {
  const { rules: parsed, violations } = parseRules(rules, 'authorize');
  assert.deepEqual(violations, []);
  return new Authorizer(parsed).decide(web, asked).allowed;
}

function found(rule: Rule) {
  return parseRules([rule], 'authorize').violations.map(({ id }) => id);
}

describe('rules for requests in HTTP', () => {
  for (const [to, asked] of [
    ['GET /v1/orders', 'GET /v1/orders'],
    ['GET /v1/orders/*', 'GET /v1/orders/7'],
    ['GET /v1/orders/*/lines', 'GET /v1/orders/7/lines'],
    ['GET /v1/**', 'GET /v1/orders/7/lines/'],
    ['GET /v1/**', 'GET /v1/'],
    ['GET /**', 'GET /'],
    ['GET /', 'GET /'],
    ['GET /v1/', 'GET /v1/'],
    ['* /v1/orders', 'DELETE /v1/orders'],
    ['POST /caf%C3%A9/a.b+c', 'POST /caf%C3%A9/a.b+c'],
  ] as const) {
    it(`allow ${asked} by ${to}`, () => assert.ok(allows([allow({ from, to })], asked)));
  }

  for (const [to, asked] of [
    ['GET /v1/orders', 'POST /v1/orders'],
    ['GET /v1/orders', 'HEAD /v1/orders'],
    ['GET /v1/orders', 'get /v1/orders'],
    ['GET /v1/orders', 'GET /v1/orders/'],
    ['GET /v1/orders', 'GET /V1/orders'],
    ['GET /v1/orders', 'GET /v1/orders?a=b'],
    ['GET /v1/orders', 'GET /v1/ordersX'],
    ['GET /v1/a.b', 'GET /v1/aXb'],
    ['GET /v1/orders/*', 'GET /v1/orders/'],
    ['GET /v1/orders/*', 'GET /v1/orders/7/lines'],
    ['GET /v1/**', 'GET /v1'],
    ['GET /v1/**', 'GET /v1x'],
    ['GET /', 'GET /x'],
    ['* /v1/orders', '/v1/orders'],
    ['GET /v1/**', '/v1.Service/Method'],
  ] as const) {
    it(`deny ${asked} where they name ${to}`, () => assert.ok(!allows([allow({ from, to })], asked)));
  }

  for (const path of [
    '//v1/admin',
    '/v1//admin',
    '/v1/./admin',
    '/v1/../admin',
    '/v1/%2e%2e/admin',
    '/v1/%2fadmin',
    '/v1%2Fadmin',
    '/v1/%5cadmin',
    '/v1\\admin',
    '/v1/%61dmin',
    '/v1/admin;x=1',
    '/v1/admin%3bx',
    '/v1/admin%00',
    '/v1/%25',
    '/v1/%c0%af',
    '/v1/%zz',
    '/v1/é',
    '/v1/a b',
    'v1/admin',
    'http://x/v1/admin',
    '*',
    '',
  ]) {
    it(`know no second spelling: GET ${path} is denied whatever they allow`, () =>
      assert.ok(!allows([allow({ from, to: ['GET /**', '* /**'] })], `GET ${path}`)));
  }

  for (const [to, asked] of [
    ['GET /admin', 'GET /admin'],
    ['GET /admin', 'HEAD /admin'],
    ['GET /admin', 'GET /admin/'],
    ['GET /admin/', 'GET /admin'],
    ['GET /admin', 'GET /ADMIN'],
    ['GET /admin/*', 'GET /Admin/7/'],
    ['GET /admin/**', 'GET /admin'],
    ['GET /admin/**', 'GET /admin/a/b/'],
    ['* /admin', 'PATCH /aDmin/'],
    ['* /**', 'GET /'],
  ] as const) {
    it(`deny ${asked} by a deny of ${to}, whatever else allows it`, () =>
      assert.ok(!allows([allow({ from, to: '* /**' }), deny({ from, to })], asked)));
  }

  for (const [to, asked] of [
    ['GET /admin', 'POST /admin'],
    ['GET /admin', 'GET /admin/x'],
    ['GET /admin', 'GET /administrators'],
    ['GET /', 'GET /x'],
  ] as const) {
    it(`leave ${asked} alone by a deny of ${to}`, () =>
      assert.ok(allows([allow({ from, to: '* /**' }), deny({ from, to })], asked)));
  }

  for (const to of [
    'GET',
    'GET ',
    'GET v1',
    'get /v1',
    'GET  /v1',
    'GET /v1 ',
    'GET /web-*',
    'GET /**/v1',
    'GET /v1//a',
    'GET /v1/../a',
    'GET /v1/%2e',
    'GET /v1?a=b',
    'GET /v1#a',
    'GET /a;b',
    'G* /v1',
    'GET,POST /v1',
  ]) {
    it(`refuse ${JSON.stringify(to)}, which names no request`, () =>
      assert.deepEqual(found(allow({ from, to })), ['authorization-rule-invalid']));
  }

  for (const to of ['GET /**', '* /v1/**', '* /**']) {
    it(`refuse ${to} for every workload of a trust domain`, () =>
      assert.deepEqual(found(allow({ from: 'spiffe://prod.acme/**', to })), ['authorization-allow-all']));
  }

  for (const to of ['GET /health', '* /health', 'GET /public/**']) {
    it(`take ${to} for every workload of a trust domain`, () =>
      assert.deepEqual(found(allow({ from: 'spiffe://prod.acme/**', to })), []));
  }

  it('answer a path of any length in time', () => {
    const rules = [allow({ from, to: ['GET /*/*/*/*/x', 'GET /a/**'] })];

    assert.ok(!allows(rules, `GET ${'/b'.repeat(50_000)}`));
    assert.ok(allows(rules, `GET /a${'/b'.repeat(50_000)}`));
  });
});
