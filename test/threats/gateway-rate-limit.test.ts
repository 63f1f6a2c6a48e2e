import assert from 'node:assert/strict';
import { InsecureConfigurationError } from '@sallyport/core';
import { type AuthHandler, type GatewayOptions, type RateLimitOptions, route } from '@sallyport/gateway';
import { fakeClock } from '@sallyport/testing';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';

/** Believes whoever says a name; `key` in front of it stands for an API key. */
const byName: AuthHandler = {
  kind: 'test',
  check: async () => [],
  open: async () => ({
    challenges: ['Bearer'],
    close: async () => {},
    async authenticate({ headers }) {
      const name = headers.authorization;
      if (name === undefined) return { outcome: 'absent' };
      const principal = {
        subject: name,
        issuer: 'test',
        scopes: new Set<string>(),
        claims: {},
        expiresAt: Date.now() + 60_000,
        method: name.startsWith('key') ? 'api-key' : 'jwt',
      };
      return { outcome: 'authenticated', principal };
    },
  }),
};

const perAddress: RateLimitOptions = {
  name: 'per-address',
  by: 'address',
  limit: 3,
  windowMs: 60_000,
  everywhere: true,
};

/** A gateway behind a proxy, so that tests can come from any address. */
async function limited(rateLimit: readonly RateLimitOptions[], options: Partial<GatewayOptions> = {}) {
  return gatewayWorld({
    rateLimit,
    trustedProxies: ['127.0.0.1'],
    routes: [
      route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true }),
      route('GET', '/mine/:id', Orders.get, { service: 'orders', auth: byName, ...named(rateLimit) }),
    ],
    ...options,
  });
}

/** `/mine` names every limit, also those that hold everywhere. */
function named(limits: readonly RateLimitOptions[]) {
  return { rateLimit: limits.map(({ name }) => name) };
}

async function statuses(world: GatewayWorld, times: number, path: string, headers: Record<string, string> = {}) {
  const found: number[] = [];
  for (let i = 0; i < times; i++) found.push((await world.ask('GET', path, { headers })).status);
  return found;
}

const from = (address: string) => ({ 'x-forwarded-for': address });

describe('T60 a client over its quota', () => {
  it('T60 is told 429, when to come back, and what the quota is; the service hears nothing of it', async () => {
    await using world = await limited([perAddress]);

    const first = await world.ask('GET', '/v1/orders/7');
    await statuses(world, 2, '/v1/orders/7');
    const over = await world.ask('GET', '/v1/orders/7');

    assert.equal(first.status, 200);
    assert.equal(first.headers['ratelimit-policy'], '"per-address";q=3;w=60');
    assert.equal(first.headers.ratelimit, '"per-address";r=2;t=60');
    assert.deepEqual([over.status, over.code], [429, 'rate-limited']);
    assert.match(over.headers['retry-after'] ?? '', /^(59|60)$/);
    assert.match(String(over.headers.ratelimit), /^"per-address";r=0;t=(59|60)$/);
    assert.equal(world.handled.length, 3);
    assert.equal(world.events('request-refused')[0]?.detail, 'over the limit per-address');
  });

  it('T60 may come again when the window is over', async () => {
    const clock = fakeClock();
    await using world = await limited([perAddress], { clock });
    assert.deepEqual(await statuses(world, 4, '/v1/orders/7'), [200, 200, 200, 429]);

    await clock.advance(60_000);

    assert.deepEqual(await statuses(world, 4, '/v1/orders/7'), [200, 200, 200, 429]);
  });

  it('T60 uses up nobody else’s', async () => {
    await using world = await limited([perAddress]);

    assert.deepEqual(await statuses(world, 4, '/v1/orders/7', from('192.0.2.1')), [200, 200, 200, 429]);
    assert.deepEqual(await statuses(world, 1, '/v1/orders/7', from('192.0.2.2')), [200]);
  });

  it('T60 gains nothing from the 2^64 addresses of its IPv6 network', async () => {
    await using world = await limited([perAddress]);
    const own = ['2001:db8::1', '2001:db8:0:0:ffff::2', '2001:DB8::7:8', '2001:db8:0:0:9:9:9:9'];

    const found = [];
    for (const address of own) found.push(...(await statuses(world, 1, '/v1/orders/7', from(address))));

    assert.deepEqual(found, [200, 200, 200, 429]);
    assert.deepEqual(await statuses(world, 1, '/v1/orders/7', from('2001:db8:0:1::1')), [200]);
  });

  it('T60 is counted before anybody looks at its credentials', async () => {
    await using world = await limited([perAddress]);

    assert.deepEqual(await statuses(world, 4, '/mine/7'), [401, 401, 401, 429]);
  });

  it('T60 is one user from whatever address', async () => {
    await using world = await limited([{ name: 'per-user', by: 'user', limit: 2, windowMs: 60_000 }]);
    const as = (name: string, address: string) =>
      statuses(world, 1, '/mine/7', { authorization: name, ...from(address) });

    assert.deepEqual(
      [await as('ann', '192.0.2.1'), await as('ann', '192.0.2.2'), await as('ann', '192.0.2.3')].flat(),
      [200, 200, 429],
    );
    assert.deepEqual(await as('ben', '192.0.2.1'), [200]);
  });

  it('T60 by key counts API keys alone', async () => {
    await using world = await limited([{ name: 'per-key', by: 'key', limit: 1, windowMs: 60_000 }]);

    assert.deepEqual(await statuses(world, 2, '/mine/7', { authorization: 'key-1' }), [200, 429]);
    assert.deepEqual(await statuses(world, 2, '/mine/7', { authorization: 'ann' }), [200, 200]);
  });

  it('T60 by address and route has each route for itself', async () => {
    await using world = await limited([{ ...perAddress, by: ['address', 'route'], limit: 1 }]);

    assert.deepEqual(await statuses(world, 2, '/v1/orders/7'), [200, 429]);
    assert.deepEqual(await statuses(world, 2, '/mine/7', { authorization: 'ann' }), [200, 429]);
  });

  it('T60 meets the first quota that is used up, of several', async () => {
    await using world = await limited([
      { name: 'burst', by: 'address', limit: 2, windowMs: 1000, everywhere: true },
      { name: 'daily', by: 'address', limit: 100, windowMs: 86_400_000, everywhere: true },
    ]);

    const { headers } = await world.ask('GET', '/v1/orders/7');
    await statuses(world, 1, '/v1/orders/7');
    const over = await world.ask('GET', '/v1/orders/7');

    assert.equal(headers['ratelimit-policy'], '"burst";q=2;w=1, "daily";q=100;w=86400');
    assert.deepEqual([over.status, over.headers['retry-after']], [429, '1']);
  });

  const wrong: [string, readonly object[], RegExp][] = [
    ['a limit that counts nothing', [{ ...perAddress, everywhere: undefined }], /^gateway\.rateLimit\[0\]$/],
    ['two limits of one name', [perAddress, perAddress], /^gateway\.rateLimit\[1\]\.name$/],
    ['no window', [{ ...perAddress, windowMs: 0 }], /^gateway\.rateLimit\[0\]\.windowMs$/],
    ['an endless quota', [{ ...perAddress, limit: Number.POSITIVE_INFINITY }], /^gateway\.rateLimit\[0\]\.limit$/],
  ];
  for (const [what, rateLimit, path] of wrong) {
    it(`T60 refuses to start with ${what}`, async () => {
      const options = { routes: [route('GET', '/', Orders.get, { service: 'orders', public: true })] };

      const error = await limited(rateLimit as unknown as RateLimitOptions[], options).then(
        () => undefined,
        (error: unknown) => error,
      );

      assert.ok(error instanceof InsecureConfigurationError, 'it has started');
      assert.match(error.violations[0]?.path ?? '', path);
    });
  }

  it('T60 refuses to start where a public route names a limit by user, or one that does not exist', async () => {
    const routes = [
      route('GET', '/a', Orders.get, { service: 'orders', public: true, rateLimit: ['per-user'] }),
      route('GET', '/b', Orders.get, { service: 'orders', public: true, rateLimit: ['per-moon'] }),
    ];
    const rateLimit: RateLimitOptions[] = [{ name: 'per-user', by: 'user', limit: 2, windowMs: 60_000 }];

    const error = await limited(rateLimit, { routes }).then(
      () => undefined,
      (error: unknown) => error,
    );

    assert.ok(error instanceof InsecureConfigurationError, 'it has started');
    assert.deepEqual(
      error.violations.map(({ path }) => path),
      ['gateway.routes[0].rateLimit', 'gateway.routes[1].rateLimit'],
    );
  });
});
