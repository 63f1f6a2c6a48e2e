import assert from 'node:assert/strict';
import { request } from 'node:http';
import { type AuthHandler, docsRoutes, type Gateway, route } from '@sallyport/gateway';
import { gatewayWorld, Orders, plainRoutes } from '../../support/gateway/world.js';

const admin = { listen: '127.0.0.1:0' };

function ask(
  { adminAddress }: Gateway,
  path: string,
  { method = 'GET', host }: { readonly method?: string; readonly host?: string } = {},
) {
  return new Promise<{ status: number | undefined; type: string | undefined; body: string }>((resolve, reject) => {
    const port = adminAddress?.split(':').at(-1);
    const headers = { host: host ?? `localhost:${port}` };
    const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (incoming) => {
      let body = '';
      incoming.setEncoding('utf8').on('data', (chunk) => {
        body += chunk;
      });
      incoming.on('end', () => resolve({ status: incoming.statusCode, type: incoming.headers['content-type'], body }));
    });
    outgoing.on('error', reject).end();
  });
}

describe('the admin listener of the gateway', () => {
  it('tells state and readiness', async () => {
    await using world = await gatewayWorld({ admin });

    const health = await ask(world.gateway, '/health');
    const ready = await ask(world.gateway, '/ready');

    assert.deepEqual([health.status, JSON.parse(health.body)], [200, { name: 'gateway', state: 'ready' }]);
    assert.deepEqual([ready.status, JSON.parse(ready.body)], [200, { ready: true, reasons: [] }]);
  });

  it('describes the routes in use, also after they were replaced, on a page without anything from elsewhere', async () => {
    await using world = await gatewayWorld({ admin });
    const paths = async () => Object.keys(JSON.parse((await ask(world.gateway, '/openapi.json')).body).paths);

    assert.deepEqual(await paths(), ['/v1/orders/{id}']);
    await world.gateway.replace({
      routes: [route('GET', '/v2/orders/:id', Orders.get, { service: 'orders', public: true })],
    });

    assert.deepEqual(await paths(), ['/v2/orders/{id}']);
    const page = await ask(world.gateway, '/');
    assert.match(page.type ?? '', /^text\/html/);
    assert.doesNotMatch(page.body, /https?:|<script>| on\w+=/);
    assert.match((await ask(world.gateway, '/page.js')).type ?? '', /javascript/);
  });

  it('tells nothing to a page of another name, changes nothing, and is not behind the public door', async () => {
    await using world = await gatewayWorld({ admin });

    assert.equal((await ask(world.gateway, '/health', { host: 'evil.example' })).status, 421);
    assert.equal((await ask(world.gateway, '/health', { method: 'POST' })).status, 405);
    assert.equal((await ask(world.gateway, '/nothing')).status, 404);
    for (const path of ['/health', '/ready', '/openapi.json', '/']) {
      assert.equal((await world.ask('GET', path)).status, 404);
    }
  });

  it('ends with the gateway', async () => {
    const world = await gatewayWorld({ admin });
    await world[Symbol.asyncDispose]();

    await assert.rejects(ask(world.gateway, '/health'), /ECONNREFUSED/);
  });
});

describe('the description of the routes behind the public door', () => {
  const staff: AuthHandler = {
    kind: 'test',
    check: async () => [],
    open: async () => ({
      challenges: ['Test'],
      async authenticate({ headers }) {
        if (headers.authorization !== 'Test staff') return { outcome: 'absent' };
        const principal = { subject: 'ann', issuer: 'test', scopes: new Set<string>(), claims: {}, method: 'test' };
        return { outcome: 'authenticated', principal: { ...principal, expiresAt: Date.now() + 60_000 } };
      },
      close: async () => {},
    }),
  };
  const routes = [...plainRoutes, ...docsRoutes(plainRoutes, { auth: staff })];
  const paths = ['/docs', '/docs/page.js', '/docs/page.css', '/docs/openapi.json'];

  it('is shown to whom it is for', async () => {
    await using world = await gatewayWorld({ routes });

    const answers = await Promise.all(
      paths.map((path) => world.ask('GET', path, { headers: { authorization: 'Test staff' } })),
    );

    assert.deepEqual(
      answers.map(({ status, headers }) => [status, headers['content-type']?.split(';')[0]]),
      [
        [200, 'text/html'],
        [200, 'text/javascript'],
        [200, 'text/css'],
        [200, 'application/json'],
      ],
    );
    assert.match(String(answers[0]?.headers['content-security-policy']), /script-src 'self'/);
    assert.deepEqual(Object.keys(JSON.parse(answers[3]?.body ?? '').paths), ['/v1/orders/{id}']);
  });

  it('is refused to everybody else', async () => {
    await using world = await gatewayWorld({ routes });
    for (const path of paths) assert.equal((await world.ask('GET', path)).status, 401);
  });

  it('is not to be had without saying for whom', async () => {
    const open = docsRoutes(plainRoutes, {} as never);
    await assert.rejects(gatewayWorld({ routes: [...plainRoutes, ...open] }), /route-access-missing/);
  });
});
