import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as netConnect } from 'node:net';
import { connect } from 'node:tls';
import { route } from '@sallyport/gateway';
import { eventually } from '../../support/eventually.js';
import { load } from '../../support/gateway/load.js';
import { gatewayWorld, Orders } from '../../support/gateway/world.js';

/** The status of the first answer on a connection, once the other side has asked to go elsewhere. */
async function firstAnswer(session: ClientHttp2Session): Promise<unknown> {
  let isTold = false;
  session.once('goaway', () => {
    isTold = true;
  });
  const stream = session.request({ ':path': '/v1/orders/7', ':authority': 'shop.test' }).resume();
  const [headers] = await once(stream, 'response');
  await eventually(() => assert.ok(isTold, 'nobody asked it to go elsewhere'), 5000);
  return headers[':status'];
}

const slow = {
  handlers: {
    async get({ id }: { id: string }) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return { text: id };
    },
  },
};

describe('the gateway over its life', () => {
  it('takes new certificates without a failed request, and shows them to the next connection', async () => {
    await using world = await gatewayWorld(slow);
    const serialNow = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connect({ host: '127.0.0.1', port: world.port, ca: world.ca, servername: 'shop.test' }, () => {
          resolve(socket.getPeerX509Certificate()?.serialNumber ?? '');
          socket.destroy();
        });
        socket.on('error', reject);
      });
    const seen = new Set([await serialNow()]);
    const busy = load(world, 4);

    for (let n = 0; n < 3; n++) {
      const next = await world.webCertificate(`next-${n}`, ['shop.test', 'www.shop.test']);
      copyFileSync(next.cert, world.certificate.cert);
      copyFileSync(next.key, world.certificate.key);
      await eventually(async () => {
        const serial = await serialNow();
        assert.ok(!seen.has(serial));
        seen.add(serial);
      });
    }
    await busy.stop();

    console.log(`        ${busy.outcome.answered} requests over 3 certificates, ${busy.outcome.failed.length} failed`);
    assert.deepEqual(busy.outcome.failed, []);
    assert.ok(busy.outcome.answered > 20);
  });

  it('keeps the last good certificate when the new one is broken, and says so', async () => {
    await using world = await gatewayWorld();
    const other = await world.webCertificate('other', ['shop.test']);

    copyFileSync(other.key, world.certificate.key);

    await eventually(() => assert.ok(world.events('rotation-failed').length > 0));
    assert.match(world.events('rotation-failed')[0]?.detail ?? '', /does not belong/);
    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
  });

  it('serves several hosts, each with its own certificate', async () => {
    await using world = await gatewayWorld();
    const admin = await world.webCertificate('admin', ['admin.test']);
    await using both = await gatewayWorld({
      tls: {
        certificates: [
          { cert: world.certificate.cert, key: world.certificate.key },
          { cert: admin.cert, key: admin.key },
        ],
      },
    });
    const status = async (host: string, servername: string) =>
      (await both.ask('GET', '/v1/orders/7', { headers: { host }, tls: { servername, ca: world.ca } })).status;

    assert.equal(await status('shop.test', 'shop.test'), 200);
    assert.equal(await status('admin.test', 'admin.test'), 200);
    assert.equal(await status('admin.test', 'shop.test'), 421);
  });

  it('drains under load without a failed request', async () => {
    const world = await gatewayWorld({ ...slow, drain: { spreadMs: 200, graceMs: 2000 } });
    const busy = load(world, 4);
    await eventually(() => assert.ok(busy.outcome.answered > 20));

    const stopped = world.gateway.stop();
    await eventually(() => assert.equal(world.gateway.state, 'draining'));
    assert.deepEqual(world.gateway.readiness, { ready: false, reasons: ['the gateway is draining'] });
    await new Promise((resolve) => setTimeout(resolve, 100));
    await busy.stop();
    await stopped;

    console.log(`        ${busy.outcome.answered} requests, ${busy.outcome.failed.length} failed`);
    assert.deepEqual(busy.outcome.failed, []);
    await world[Symbol.asyncDispose]();
  });

  it('lets a request that runs come to its end, on both versions of HTTP', async () => {
    let release: (() => void) | undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true })],
      handlers: { get: ({ id }) => held.then(() => ({ text: id })) },
      drain: { spreadMs: 0, graceMs: 5000 },
    });
    const one = world.ask('GET', '/v1/orders/1');
    const session = connectHttp2(`https://127.0.0.1:${world.port}`, { ca: world.ca, servername: 'shop.test' });
    const two = new Promise((resolve, reject) => {
      const stream = session.request({ ':path': '/v1/orders/2', ':authority': 'shop.test' });
      stream.on('response', (headers) => resolve(headers[':status']));
      stream.on('error', reject);
      stream.resume();
    });
    await new Promise((resolve) => setTimeout(resolve, 200));

    const stopped = world.gateway.stop();
    setTimeout(() => release?.(), 100);

    assert.deepEqual([(await one).status, await two], [200, 200]);
    await stopped;
    session.close();
    await world[Symbol.asyncDispose]();
  });

  it('answers whoever comes over HTTP/2 while it drains, and asks it to go elsewhere', async () => {
    const releases: (() => void)[] = [];
    const held = () => new Promise<void>((resolve) => releases.push(resolve));
    const world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true })],
      handlers: { get: ({ id }) => (id === 'held' ? held() : Promise.resolve()).then(() => ({ text: id })) },
      drain: { spreadMs: 300, graceMs: 10_000 },
    });
    const { port, ca } = world;
    const before = world.ask('GET', '/v1/orders/held');
    await eventually(() => assert.equal(releases.length, 1));
    const late = netConnect(port, '127.0.0.1');
    await once(late, 'connect');

    const stopped = world.gateway.stop();
    const meanwhile = await firstAnswer(connectHttp2(`https://127.0.0.1:${port}`, { ca, servername: 'shop.test' }));
    await eventually(() => assert.rejects(once(netConnect(port, '127.0.0.1'), 'connect')));
    const afterwards = await firstAnswer(
      connectHttp2('https://shop.test', {
        createConnection: () => connect({ socket: late, ca, servername: 'shop.test', ALPNProtocols: ['h2'] }),
      }),
    );
    releases[0]?.();
    const releasedAt = Date.now();
    await stopped;

    assert.deepEqual([meanwhile, afterwards], [200, 200]);
    assert.equal((await before).status, 200);
    assert.ok(Date.now() - releasedAt < 5000, 'it has waited for requests of clients that were not told to go');
    await world[Symbol.asyncDispose]();
  });

  it('waits for its turn when too many requests run, and answers 503 when too many wait', async () => {
    const releases: (() => void)[] = [];
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true })],
      limits: { maxConcurrentRequests: 1, maxQueuedRequests: 1 },
      handlers: {
        get: async ({ id }) => {
          await new Promise<void>((resolve) => releases.push(resolve));
          return { text: id };
        },
      },
    });
    const first = world.ask('GET', '/v1/orders/1');
    await eventually(() => assert.equal(releases.length, 1));
    const second = world.ask('GET', '/v1/orders/2');
    await new Promise((resolve) => setTimeout(resolve, 100));

    const third = await world.ask('GET', '/v1/orders/3');
    releases[0]?.();
    await eventually(() => assert.equal(releases.length, 2));
    releases[1]?.();

    assert.deepEqual([third.status, third.code, third.headers['retry-after']], [503, 'overloaded', '1']);
    assert.deepEqual([(await first).status, (await second).status], [200, 200]);
  });

  it('binds nothing when something is wrong, and says everything that is', async () => {
    const error = await gatewayWorld({
      listen: '0.0.0.0:0',
      routes: [
        route('GET', '/a/:id', Orders.get, { service: 'orders' } as never),
        route('GET', '/b/*', Orders.get, { service: 'orders', public: true }),
        route('GET', '/c/:id', Orders.get, { service: 'orders', public: true }),
        route('GET', '/c/mine', Orders.get, { service: 'orders', public: true }),
        route('GET', '/d', undefined as never, { service: 'orders', public: true }),
      ],
      limits: { maxBodyBytes: 0 },
    }).then(
      () => undefined,
      (refusal) => refusal,
    );

    assert.deepEqual(error.violations.map(({ id, path }: { id: string; path: string }) => `${id} ${path}`).sort(), [
      'limit-unbounded gateway.limits.maxBodyBytes',
      'route-access-missing gateway.routes[0]',
      'route-conflict gateway.routes[3]',
      'route-invalid gateway.routes[1].path',
      'route-method-unknown gateway.routes[4].target',
      'server-wildcard-bind gateway.listen',
    ]);
  });
});
