import assert from 'node:assert/strict';
import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { text } from 'node:stream/consumers';
import { CallError, InsecureConfigurationError } from '@sallyport/core';
import { type AuthHandler, type CacheOptions, httpRoute, route } from '@sallyport/gateway';
import { fakeClock } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { httpUpstream } from '../../support/gateway/http-upstream.js';
import { type GatewayWorld, type GatewayWorldOptions, gatewayWorld, Orders } from '../../support/gateway/world.js';

/** Believes whoever says a name, and behind blanks a scope and a tenant. */
const byName: AuthHandler = {
  kind: 'test',
  check: async () => [],
  open: async () => ({
    challenges: ['Bearer'],
    close: async () => {},
    async authenticate({ headers }) {
      const [subject = '', scope = '', tenant] = (headers.authorization ?? '').split(' ');
      if (subject === '') return { outcome: 'absent' };
      const expiresAt = Date.now() + 60_000;
      const claims = tenant === undefined ? {} : { tenant };
      const principal = { subject, issuer: 'test', scopes: new Set([scope]), claims, expiresAt, method: 'test' };
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

describe('the cache of a route to a contract', () => {
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

  it('gives nobody the answer of another user, of another scope, or of a claim that services are told', async () => {
    await using world = await counting({ ttlMs: 60_000 }, { userClaims: ['tenant'] });
    const ask = async (authorization: string) =>
      (await world.ask('GET', '/mine/7', { headers: { authorization } })).body;

    const answers = [await ask('ann read'), await ask('ben read'), await ask('ann write'), await ask('ann read acme')];

    assert.equal(new Set(answers).size, 4);
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
      'an HTTP service that sees cookies of the client',
      () => httpRoute('GET', '/a', { upstream: 'files', public: true, passes: ['cookie'], cache: { ttlMs: 1 } }),
      'option-invalid',
    ],
    [
      'a POST to an HTTP service',
      () => httpRoute('POST', '/a', { upstream: 'files', public: true, cache: { ttlMs: 1 } }),
      'option-invalid',
    ],
    [
      'users of an HTTP service together',
      () => httpRoute('GET', '/a', { upstream: 'files', auth: byName, cache: { ttlMs: 1 } }),
      'cache-shared-between-users',
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

interface Asked {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
}

/** An HTTP service whose answers have its number, and routes that keep them. */
async function countingFiles(cache: CacheOptions, respond: Respond = plain, options: GatewayWorldOptions = {}) {
  const asked: Asked[] = [];
  const world = await gatewayWorld({
    routes: [
      httpRoute('GET', '/files/:name', { upstream: 'files', public: true, cache }),
      httpRoute('GET', '/mine/:name', {
        upstream: 'files',
        auth: byName,
        cache: { ...cache, by: ['subject', ...(cache.by ?? [])] },
      }),
    ],
    ...options,
  });
  const service = await httpUpstream(world.mesh, (request, response) => {
    asked.push({ path: request.url ?? '', headers: request.headers });
    respond(response, String(asked.length));
  });
  return {
    world,
    asked,
    /** The number that the answer has. */
    ask: async (path: string, headers: Record<string, string> = {}) => (await world.ask('GET', path, { headers })).body,
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
    },
  };
}

type Respond = (response: ServerResponse, number: string) => void;
const plain: Respond = (response, number) => response.setHeader('content-type', 'text/plain').end(number);

/** Answers with these headers. */
function having(headers: OutgoingHttpHeaders, status = 200): Respond {
  return (response, number) => response.writeHead(status, headers).end(number);
}

/** A request whose answer has begun to come. */
function begin({ port, ca }: GatewayWorld, path: string): Promise<IncomingMessage> {
  const at = {
    host: '127.0.0.1',
    port,
    ca,
    servername: 'shop.test',
    agent: false,
    path,
    headers: { host: 'shop.test' },
  };
  return new Promise((resolve, reject) => {
    httpsRequest(at, resolve).on('error', reject).end();
  });
}

describe('the cache of a route to an HTTP service', () => {
  it('gives an answer again until its time is over, and says how old it is', async () => {
    const clock = fakeClock();
    await using files = await countingFiles({ ttlMs: 10_000 }, plain, { clock });
    const { world, ask, asked } = files;

    const first = await world.ask('GET', '/files/a');
    await clock.advance(3000);
    const second = await world.ask('GET', '/files/a');

    assert.deepEqual([first.body, second.body], ['1', '1']);
    assert.deepEqual([first.headers.age, second.headers.age], [undefined, '3']);
    assert.deepEqual([second.status, second.headers['content-type']], [200, 'text/plain']);
    assert.notEqual(first.headers['x-request-id'], second.headers['x-request-id']);
    await clock.advance(7000);
    assert.equal(await ask('/files/a'), '2');
    assert.equal(asked.length, 2);
  });

  it('tells hosts, paths, queries and the named headers apart, and shows the service no other header of the client', async () => {
    await using files = await countingFiles({ ttlMs: 60_000, by: ['header:accept-language'] });
    const { world, ask, asked } = files;

    const answers = [
      await ask('/files/a'),
      await ask('/files/b'),
      await ask('/files/a?x=1'),
      await ask('/files/a', { 'accept-language': 'de' }),
      (await world.ask('GET', '/files/a', { headers: { host: 'www.shop.test' }, tls: { servername: 'www.shop.test' } }))
        .body,
    ];

    assert.equal(new Set(answers).size, answers.length);
    // Whoever asks first cannot have the others see what a header of his has made of the answer.
    assert.equal(await ask('/files/a', { 'x-theme': 'evil', accept: 'text/html', range: 'bytes=0-0' }), answers[0]);
    await ask('/files/c', { 'x-theme': 'evil', 'if-none-match': '"c"', range: 'bytes=0-0', 'accept-language': 'fr' });
    const { headers } = asked.at(-1) as Asked;
    assert.deepEqual([headers['accept-language'], headers['x-theme'], headers.range], ['fr', undefined, undefined]);
    assert.equal(headers['if-none-match'], undefined);
  });

  it('gives nobody the answer of another user, of another scope, or of a claim that services are told', async () => {
    await using files = await countingFiles({ ttlMs: 60_000 }, plain, { userClaims: ['tenant'] });
    const ask = (authorization: string) => files.ask('/mine/a', { authorization });

    const answers = [await ask('ann read'), await ask('ben read'), await ask('ann write'), await ask('ann read acme')];

    assert.equal(new Set(answers).size, 4);
    assert.equal(await ask('ann read'), answers[0]);
    assert.equal((await files.world.ask('GET', '/mine/a')).status, 401);
  });

  const kept: [string, OutgoingHttpHeaders][] = [
    ['nothing', {}],
    ['public', { 'cache-control': 'public' }],
    ['an age that is not reached', { 'cache-control': 'max-age=100', age: '50' }],
    ['a time for shared caches', { 'cache-control': 'max-age=0, s-maxage=100' }],
    ['that it varies by a header that is told apart', { vary: 'Accept-Language' }],
    ['an end that is not reached', { date: new Date(0).toUTCString(), expires: new Date(100_000).toUTCString() }],
  ];
  for (const [what, headers] of kept) {
    it(`keeps an answer that says ${what}`, async () => {
      await using files = await countingFiles({ ttlMs: 60_000, by: ['header:accept-language'] }, having(headers));

      assert.deepEqual([await files.ask('/files/a'), await files.ask('/files/a')], ['1', '1']);
    });
  }

  const forbidden: [string, Respond][] = [
    ['no-store', having({ 'cache-control': 'public, NO-STORE' })],
    ['no-cache', having({ 'cache-control': 'no-cache' })],
    ['private', having({ 'cache-control': 'private="x", max-age=100' })],
    ['no time', having({ 'cache-control': 'max-age=0' })],
    ['no time for shared caches', having({ 'cache-control': 'max-age=100, s-maxage=0' })],
    ['a time that is none', having({ 'cache-control': 'max-age=soon' })],
    ['an age that is reached', having({ 'cache-control': 'max-age=100', age: '100' })],
    ['an end that is over', having({ date: new Date(100_000).toUTCString(), expires: new Date(0).toUTCString() })],
    ['an end that is none', having({ expires: '0' })],
    ['a cookie', having({ 'set-cookie': 'who=ann' })],
    ['that it varies by everything', having({ vary: '*' })],
    ['that it varies by a header that is not told apart', having({ vary: 'Accept-Language, Cookie' })],
    ['that it was not found', having({}, 404)],
    ['that it is elsewhere', having({ location: '/files/b' }, 302)],
    ['more than the cache holds', (response, number) => response.end(`${number} ${'x'.repeat(3000)}`)],
  ];
  for (const [what, respond] of forbidden) {
    it(`keeps no answer that says ${what}`, async () => {
      const cache: CacheOptions = { ttlMs: 60_000, by: ['header:accept-language'], maxBytes: 2500 };
      await using files = await countingFiles(cache, respond);

      await files.ask('/files/a');
      await files.ask('/files/a');

      assert.equal(files.asked.length, 2);
    });
  }

  it('keeps no answer that breaks off, and none of HEAD', async () => {
    await using files = await countingFiles({ ttlMs: 60_000 }, (response, number) => {
      if (number !== '2') return response.end(number);
      response.writeHead(200, { 'content-length': 100 });
      return response.write('half', () => response.destroy());
    });
    const { world, ask } = files;

    assert.equal((await world.ask('HEAD', '/files/a')).body, '');
    await assert.rejects(ask('/files/a'));
    assert.equal(await ask('/files/a'), '3');
    assert.equal(await ask('/files/a'), '3');
  });

  it('keeps an answer that comes slowly until its time is over, counted from when it began to come', async () => {
    const clock = fakeClock();
    const coming: ServerResponse[] = [];
    await using files = await countingFiles({ ttlMs: 10_000 }, (response) => coming.push(response), { clock });
    const { world } = files;
    const slowly = async (path: string, takesMs: number) => {
      const asked = begin(world, path);
      await eventually(() => assert.equal(coming.length, 1));
      coming[0]?.write('old');
      const answer = await asked;
      await clock.advance(takesMs);
      coming.shift()?.end();
      assert.equal(await text(answer), 'old');
    };
    const isAskedAnew = async (path: string) => {
      const asked = world.ask('GET', path);
      await eventually(() => assert.equal(coming.length, 1, 'it was given again when its time was over'), 2000);
      coming.shift()?.end('new');
      assert.equal((await asked).body, 'new');
    };

    await slowly('/files/a', 4000);
    await clock.advance(5000);
    const { body, headers } = await world.ask('GET', '/files/a');
    assert.deepEqual([body, headers.age], ['old', '9']);
    await clock.advance(1000);
    await isAskedAnew('/files/a');

    await slowly('/files/b', 10_000);
    await isAskedAnew('/files/b');
  });

  it('keeps no answer over one that began to come later', async () => {
    const clock = fakeClock();
    const coming: ServerResponse[] = [];
    const respond: Respond = (response, number) => {
      response.write(number);
      coming.push(response);
    };
    await using files = await countingFiles({ ttlMs: 10_000 }, respond, { clock });

    const old = await begin(files.world, '/files/a');
    await clock.advance(1000);
    const later = await begin(files.world, '/files/a');
    coming[1]?.end();
    assert.equal(await text(later), '2');
    coming[0]?.end();
    assert.equal(await text(old), '1');

    assert.equal(await files.ask('/files/a'), '2');
  });

  it('keeps no more than it may, also of answers that come at the same time', async () => {
    const body = 'x'.repeat(900);
    await using files = await countingFiles({ ttlMs: 60_000, maxBytes: 5000 }, (response) => response.end(body));
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

    await Promise.all(names.map((name) => files.ask(`/files/${name}`)));
    const before = files.asked.length;
    for (const name of names) assert.equal(await files.ask(`/files/${name}`), body);

    assert.ok(files.asked.length - before >= names.length - 5, `${files.asked.length - before} were asked again`);
  });
});
