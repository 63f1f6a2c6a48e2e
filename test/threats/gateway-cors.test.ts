import assert from 'node:assert/strict';
import { InsecureConfigurationError } from '@sallyport/core';
import { type CorsOptions, route } from '@sallyport/gateway';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';

const SHOP = 'https://app.shop.test';

const foreign = [
  'https://evil.test',
  'null',
  'http://app.shop.test',
  'https://app.shop.test.evil.test',
  'https://evilapp.shop.test',
  'https://app.shop.test:444',
  'https://APP.shop.test',
  'https://app.shop.test/',
  'https://app.shop.tes',
  '*',
  '',
];

describe('T49 pages of other origins', () => {
  let world: GatewayWorld;

  before(async () => {
    world = await gatewayWorld({
      cors: { origins: [SHOP, 'https://other.test'], credentials: true },
      routes: [
        route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true }),
        route('POST', '/v1/orders/:id', Orders.create, { service: 'orders', public: true }),
        route('GET', '/own/:id', Orders.get, { service: 'orders', public: true, cors: false }),
        route('GET', '/partner/:id', Orders.get, {
          service: 'orders',
          public: true,
          cors: { origins: ['https://partner.test'] },
        }),
      ],
    });
  });

  after(() => world[Symbol.asyncDispose]());

  it('T49 an allowed one may read the answer, and only that one is named', async () => {
    const { status, headers } = await world.ask('GET', '/v1/orders/7', { headers: { origin: SHOP } });

    assert.equal(status, 200);
    assert.equal(headers['access-control-allow-origin'], SHOP);
    assert.equal(headers['access-control-allow-credentials'], 'true');
    assert.equal(headers.vary, 'Origin');
  });

  for (const origin of foreign) {
    it(`T49 ${JSON.stringify(origin)} reads nothing, and causes nothing`, async () => {
      const before = world.handled.length;

      const answer = await world.ask('POST', '/v1/orders/7', { headers: { origin }, body: { text: 'a' } });

      assert.deepEqual([answer.status, answer.code], [403, 'origin-forbidden']);
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
      assert.equal(answer.headers['access-control-allow-credentials'], undefined);
      assert.equal(answer.headers.vary, 'Origin');
      assert.equal(world.handled.length, before);
    });
  }

  it('T49 an answer without an origin varies by it too, so that no cache gives it to the wrong page', async () => {
    const { headers } = await world.ask('GET', '/v1/orders/7');

    assert.deepEqual([headers.vary, headers['access-control-allow-origin']], ['Origin', undefined]);
  });

  it('the own origin needs no permission', async () => {
    assert.equal((await world.ask('GET', '/v1/orders/7', { headers: { origin: 'https://shop.test' } })).status, 200);
  });

  it('a preflight says what is allowed, and for how long', async () => {
    const { status, headers } = await world.ask('OPTIONS', '/v1/orders/7', {
      headers: {
        origin: SHOP,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'Content-Type, X-Evil',
      },
    });

    assert.equal(status, 204);
    assert.equal(headers['access-control-allow-origin'], SHOP);
    assert.equal(headers['access-control-allow-methods'], 'GET, HEAD, POST');
    assert.equal(headers['access-control-allow-headers'], 'content-type');
    assert.equal(headers['access-control-max-age'], '600');
    assert.match(headers.vary ?? '', /Origin/);
  });

  it('T49 a preflight of a foreign page is refused', async () => {
    for (const origin of foreign) {
      const { status, headers } = await world.ask('OPTIONS', '/v1/orders/7', {
        headers: { origin, 'access-control-request-method': 'POST' },
      });
      assert.deepEqual([status, headers['access-control-allow-origin']], [403, undefined], origin);
    }
  });

  it('a route may allow others, or none', async () => {
    const ask = async (path: string, origin: string) => (await world.ask('GET', path, { headers: { origin } })).status;

    assert.deepEqual([await ask('/own/7', SHOP), await ask('/own/7', 'https://shop.test')], [403, 200]);
    assert.deepEqual([await ask('/partner/7', SHOP), await ask('/partner/7', 'https://partner.test')], [403, 200]);
  });

  it('T49 are let in by no gateway that does not name them', async () => {
    await using plain = await gatewayWorld();

    assert.equal((await plain.ask('GET', '/v1/orders/7', { headers: { origin: SHOP } })).status, 403);
  });

  const unsafe: [string, unknown][] = [
    ['*', '*'],
    ['null', 'null'],
    ['a pattern', 'https://*.shop.test'],
    ['a regular expression', /shop/],
    ['a path', 'https://shop.test/'],
    ['an upper-case host', 'https://SHOP.test'],
    ['the default port', 'https://shop.test:443'],
    ['clear text', 'http://shop.test'],
    ['no scheme', 'shop.test'],
  ];
  for (const [what, origin] of unsafe) {
    it(`T49 refuses to start with ${what} in place of an origin`, async () => {
      const cors = { origins: [origin] } as unknown as CorsOptions;

      const error = await gatewayWorld({ cors }).then(
        () => undefined,
        (error) => error as InsecureConfigurationError,
      );

      assert.ok(error instanceof InsecureConfigurationError, 'it has started');
      assert.match(error.violations[0]?.path ?? '', /^gateway\.cors\.origins\[0\]$/);
    });
  }

  it('a page on the developer’s own machine may come in clear text', async () => {
    await using local = await gatewayWorld({ cors: { origins: ['http://localhost:5173'] } });

    assert.equal(
      (await local.ask('GET', '/v1/orders/7', { headers: { origin: 'http://localhost:5173' } })).status,
      200,
    );
  });
});
