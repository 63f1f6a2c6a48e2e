import assert from 'node:assert/strict';
import { InsecureConfigurationError, UsageError } from '@sallyport/core';
import { type AuthHandler, type RateLimitOptions, route } from '@sallyport/gateway';
import { eventually } from '../../support/eventually.js';
import { load } from '../../support/gateway/load.js';
import { type Answer, gatewayWorld, Orders, plainRoutes } from '../../support/gateway/world.js';

const open = { service: 'orders', public: true } as const;
const [get] = plainRoutes as [(typeof plainRoutes)[0]];

describe('a gateway whose routes are replaced', () => {
  it('drops no request under load, and follows the new list at once', async () => {
    await using world = await gatewayWorld();
    const busy = load(world, 4);

    for (let n = 0; n < 20; n++) {
      await world.gateway.replace({ routes: [get, route('GET', `/v${n + 2}/orders/:id`, Orders.get, open)] });
      assert.equal((await world.ask('GET', `/v${n + 2}/orders/7`)).status, 200);
      assert.equal((await world.ask('GET', `/v${n + 1}/orders/7`)).status, n === 0 ? 200 : 404);
    }
    await busy.stop();

    console.log(`        ${busy.outcome.answered} requests over 20 lists, ${busy.outcome.failed.length} failed`);
    assert.deepEqual(busy.outcome.failed, []);
    assert.ok(busy.outcome.answered > 20);
  });

  it('lets requests that run come to their end by the list they came by, and closes its handlers then', async () => {
    const { promise: held, resolve: release } = withResolvers();
    const { promise: arrived, resolve: arrive } = withResolvers();
    const closed: string[] = [];
    const known = { auth: anybody(() => closed.push('old')), service: 'orders' };
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, known)],
      handlers: {
        async get({ id }) {
          arrive();
          await held;
          return { text: id };
        },
      },
    });
    const running = world.ask('GET', '/v1/orders/7');
    await arrived;

    await world.gateway.replace({ routes: [route('GET', '/v2/orders/:id', Orders.get, open)] });
    const gone = await world.ask('GET', '/v1/orders/7');
    assert.deepEqual(closed, []);
    release();

    assert.equal(gone.status, 404);
    assert.equal((await running).status, 200);
    await eventually(() => assert.deepEqual(closed, ['old']));
  });

  it('keeps a handler open that both lists name, and with it what it has seen', async () => {
    const closed: string[] = [];
    const opened: string[] = [];
    const auth = anybody(
      () => closed.push('users'),
      () => opened.push('users'),
    );
    const routes = (path: string) => [route('GET', path, Orders.get, { service: 'orders', auth })];
    await using world = await gatewayWorld({ routes: routes('/v1/orders/:id') });

    await world.gateway.replace({ routes: routes('/v2/orders/:id') });
    await world.gateway.replace({ routes: routes('/v3/orders/:id') });

    assert.equal((await world.ask('GET', '/v3/orders/7')).status, 200);
    assert.deepEqual([opened, closed], [['users'], []]);
    await world.gateway.replace({ routes: plainRoutes });
    await eventually(() => assert.deepEqual(closed, ['users']));
  });

  it('goes on counting for the limits that stay, under load and without a failed request', async () => {
    const everything = { name: 'all', by: 'address', limit: 1_000_000, windowMs: 600_000, everywhere: true } as const;
    const other = { ...everything, name: 'other' };
    await using world = await gatewayWorld({ rateLimit: [everything] });
    const busy = load(world, 4);

    for (let n = 0; n < 10; n++) {
      await world.gateway.replace({ routes: [get], rateLimit: n % 2 === 0 ? [everything] : [other, everything] });
      await eventually(() => assert.ok(busy.outcome.answered > 10 * n));
    }
    await world.gateway.replace({ routes: [get], rateLimit: [everything] });
    await busy.stop();
    const last = await world.ask('GET', '/v1/orders/7');

    assert.deepEqual(busy.outcome.failed, []);
    assert.equal(remainingOf(last), everything.limit - busy.outcome.answered - 1);
  });

  it('begins to count anew for a limit that counts something else, not for one that allows more', async () => {
    const limit = { name: 'all', by: 'address', limit: 10, windowMs: 600_000, everywhere: true } as const;
    await using world = await gatewayWorld({ rateLimit: [limit] });
    const next = async (rateLimit: readonly RateLimitOptions[]) => {
      await world.gateway.replace({ routes: plainRoutes, rateLimit });
      return remainingOf(await world.ask('GET', '/v1/orders/7'));
    };

    assert.equal(await next([limit]), 9);
    assert.equal(await next([{ ...limit, limit: 20 }]), 18);
    assert.equal(await next([{ ...limit, windowMs: 300_000 }]), 9);
    assert.equal(await next([{ ...limit, by: ['address', 'route'] }]), 9);
    // The first one was in no list meanwhile, and nothing of it was kept.
    assert.equal(await next([limit]), 9);
  });

  it('holds requests of both lists to one limit of concurrency', async () => {
    const { promise: held, resolve: release } = withResolvers();
    const { promise: arrived, resolve: arrive } = withResolvers();
    await using world = await gatewayWorld({
      limits: { maxConcurrentRequests: 1, maxQueuedRequests: 1 },
      handlers: {
        async get({ id }) {
          arrive();
          await held;
          return { text: id };
        },
      },
    });
    const running = world.ask('GET', '/v1/orders/7');
    await arrived;

    await world.gateway.replace({ routes: plainRoutes });
    const next = [world.ask('GET', '/v1/orders/8'), world.ask('GET', '/v1/orders/9')];
    // Of the two one waits for its turn; the other is told that too many do.
    const refused = await Promise.race(next);
    release();
    const [first, ...others] = await Promise.all([running, ...next]);

    assert.deepEqual([refused.status, refused.code], [503, 'overloaded']);
    assert.equal(first?.status, 200);
    assert.deepEqual(others.map(({ status }) => status).sort(), [200, 503]);
  });

  it('stays as it is when the new list is refused, or cannot be opened', async () => {
    await using world = await gatewayWorld();
    const unreachable: AuthHandler = {
      kind: 'test',
      check: async () => [],
      open: () => Promise.reject(new Error('the issuer is away')),
    };

    await assert.rejects(world.gateway.replace({ routes: [get, get] }), InsecureConfigurationError);
    await assert.rejects(
      world.gateway.replace({ routes: plainRoutes, hosts: ['other.test'] }),
      /no certificate covers/,
    );
    await assert.rejects(
      world.gateway.replace({ routes: [route('GET', '/', Orders.get, { service: 'orders', auth: unreachable })] }),
      /the issuer is away/,
    );

    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
  });

  it('refuses changes before it is ready and after it has stopped', async () => {
    const world = await gatewayWorld();
    await world[Symbol.asyncDispose]();

    await assert.rejects(world.gateway.replace({ routes: plainRoutes }), UsageError);
  });
});

/** What is left of the one quota that counts the request. */
function remainingOf({ headers }: Answer): number {
  return Number(/;r=(\d+)/.exec(String(headers.ratelimit))?.[1]);
}

function anybody(onClose: () => void, onOpen: () => void = () => {}): AuthHandler {
  const principal = { subject: 'ann', issuer: 'test', scopes: new Set<string>(), claims: {}, method: 'test' };
  return {
    kind: 'test',
    check: async () => [],
    async open() {
      onOpen();
      return {
        challenges: ['Test'],
        authenticate: async () => ({
          outcome: 'authenticated',
          principal: { ...principal, expiresAt: Date.now() + 60_000 },
        }),
        close: async () => onClose(),
      };
    },
  };
}

function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
