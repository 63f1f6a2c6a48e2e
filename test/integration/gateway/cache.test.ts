import assert from 'node:assert/strict';
import { CallError, InsecureConfigurationError } from '@sallyport/core';
import { type AuthHandler, type CacheOptions, httpRoute, route } from '@sallyport/gateway';
import { fakeClock } from '@sallyport/testing';
import { type GatewayWorldOptions, gatewayWorld, Orders } from '../../support/gateway/world.js';

/** Believes whoever says a name, and a scope after a blank. */
const byName: AuthHandler = {
  kind: 'test',
  check: async () => [],
  open: async () => ({
    challenges: ['Bearer'],
    close: async () => {},
    async authenticate({ headers }) {
      const [subject = '', scope = ''] = (headers.authorization ?? '').split(' ');
      if (subject === '') return { outcome: 'absent' };
      const expiresAt = Date.now() + 60_000;
      const principal = { subject, issuer: 'test', scopes: new Set([scope]), claims: {}, expiresAt, method: 'test' };
      return { outcome: 'authenticated', principal };
    },
  }),
};

/** Each call is answered with its number. */
function counting(cache: CacheOptions, options: GatewayWorldOptions = {}) {
  let calls = 0;
  return gatewayWorld({
    routes: [
      route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true, cache }),
      route('GET', '/mine/:id', Orders.get, {
        service: 'orders',
        auth: byName,
        cache: { ...cache, by: ['subject', ...(cache.by ?? [])] },
      }),
    ],
    handlers: { get: () => ({ text: String(++calls) }) },
    ...options,
  });
}

describe('the cache of a route', () => {
  it('gives an answer again until its time is over', async () => {
    const clock = fakeClock();
    await using world = await counting({ ttlMs: 1000 }, { clock });
    const ask = async () => (await world.ask('GET', '/v1/orders/7')).body;

    assert.deepEqual([await ask(), await ask()], ['{"text":"1"}', '{"text":"1"}']);
    await clock.advance(1000);
    assert.equal(await ask(), '{"text":"2"}');
  });

  it('tells paths, queries and the named headers apart', async () => {
    await using world = await counting({ ttlMs: 60_000, by: ['header:accept-language'] });
    const ask = async (path: string, headers: Record<string, string> = {}) =>
      (await world.ask('GET', path, { headers })).body;

    const answers = [
      await ask('/v1/orders/7'),
      await ask('/v1/orders/8'),
      await ask('/v1/orders/7?times=2'),
      await ask('/v1/orders/7?times=3'),
      await ask('/v1/orders/7', { 'accept-language': 'de' }),
    ];

    assert.equal(new Set(answers).size, answers.length);
    assert.equal(await ask('/v1/orders/7', { 'user-agent': 'another' }), answers[0]);
  });

  it('gives nobody the answer of another user, or of another scope', async () => {
    await using world = await counting({ ttlMs: 60_000 });
    const ask = async (authorization: string) =>
      (await world.ask('GET', '/mine/7', { headers: { authorization } })).body;

    const answers = [await ask('ann read'), await ask('ben read'), await ask('ann write')];

    assert.equal(new Set(answers).size, 3);
    assert.equal(await ask('ann read'), answers[0]);
    assert.equal((await world.ask('GET', '/mine/7')).status, 401);
  });

  it('keeps no more than it may, and no failure', async () => {
    let calls = 0;
    await using world = await counting(
      { ttlMs: 60_000, maxEntries: 2 },
      {
        handlers: {
          get({ id }) {
            if (id === 'bad') throw new CallError('NOT_FOUND', 'none');
            return { text: String(++calls) };
          },
        },
      },
    );
    const ask = async (id: string) => (await world.ask('GET', `/v1/orders/${id}`)).body;

    const first = await ask('1');
    await ask('2');
    await ask('3');
    assert.notEqual(await ask('1'), first);
    await ask('bad');
    await ask('bad');

    assert.equal(world.events('request-refused').length, 2);
  });

  const wrong: [string, () => ReturnType<typeof route>, string][] = [
    [
      'a POST',
      () => route('POST', '/a', Orders.create, { service: 'orders', public: true, cache: { ttlMs: 1 } }),
      'option-invalid',
    ],
    [
      'a stream',
      () => route('GET', '/a', Orders.watch, { service: 'orders', public: true, cache: { ttlMs: 1 } }),
      'option-invalid',
    ],
    [
      'an HTTP service',
      () => httpRoute('GET', '/a', { upstream: 'files', public: true, cache: { ttlMs: 1 } } as never),
      'option-invalid',
    ],
    [
      'users together',
      () => route('GET', '/a', Orders.get, { service: 'orders', auth: byName, cache: { ttlMs: 1 } }),
      'cache-shared-between-users',
    ],
    [
      'answers for ever',
      () =>
        route('GET', '/a', Orders.get, { service: 'orders', public: true, cache: { ttlMs: Number.POSITIVE_INFINITY } }),
      'limit-unbounded',
    ],
  ];
  for (const [what, made, id] of wrong) {
    it(`is refused for ${what}`, async () => {
      const error = await gatewayWorld({ routes: [made()] }).then(
        () => undefined,
        (error: unknown) => error,
      );

      assert.ok(error instanceof InsecureConfigurationError, 'it has started');
      assert.equal(error.violations[0]?.id, id);
    });
  }
});
