import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import { secret } from '@sallyport/core';
import { type RateLimitOptions, redis } from '@sallyport/gateway';
import { eventually } from '../../support/eventually.js';
import { type GatewayWorld, gatewayWorld } from '../../support/gateway/world.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { type RedisServer, startRedis } from '../../support/servers/redis-server.js';

describe('a quota that gateways share in Redis', function () {
  this.timeout(30_000);
  requireServers('redis-server');
  let server: RedisServer;

  before(async () => {
    server = await startRedis();
  });

  beforeEach(() => server.ask('FLUSHALL'));

  after(async () => await server?.[Symbol.asyncDispose]());

  function quota(onStoreFailure: 'allow' | 'refuse', more: object = {}): RateLimitOptions[] {
    const { url, ca, username, password } = server;
    const store = redis({
      url,
      ca,
      username,
      password: secret.from({ get: async () => password }, 'redis'),
      ...more,
    });
    return [{ name: 'shared', by: 'address', limit: 5, windowMs: 60_000, everywhere: true, store, onStoreFailure }];
  }

  async function status(world: GatewayWorld): Promise<number> {
    return (await world.ask('GET', '/v1/orders/7')).status;
  }

  it('T60 is one for two gateways', async () => {
    await using one = await gatewayWorld({ rateLimit: quota('refuse') });
    await using two = await gatewayWorld({ rateLimit: quota('refuse') });

    const found = [];
    for (let i = 0; i < 3; i++) found.push(await status(one), await status(two));

    assert.deepEqual(found, [200, 200, 200, 200, 200, 429]);
  });

  it('T60 is not overdrawn by requests at the same time', async () => {
    await using one = await gatewayWorld({ rateLimit: quota('refuse') });
    await using two = await gatewayWorld({ rateLimit: quota('refuse') });

    const found = await Promise.all(Array.from({ length: 20 }, (_, i) => status(i % 2 === 0 ? one : two)));

    assert.equal(found.filter((code) => code === 200).length, 5);
    assert.equal(found.filter((code) => code === 429).length, 15);
  });

  it('holds no name and no address, and ends by itself', async () => {
    await using world = await gatewayWorld({ rateLimit: quota('refuse') });
    await status(world);

    const keys = await server.ask('KEYS *');
    const [key = ''] = /sallyport:rate:shared:[\w-]{43}/.exec(keys) ?? [];

    assert.notEqual(key, '');
    assert.doesNotMatch(keys, /127\.0\.0\.1/);
    assert.match(await server.ask(`PTTL ${key}`), /^:(59|60)\d{3}/m);
  });

  for (const mode of ['allow', 'refuse'] as const) {
    it(`T60 ${mode === 'allow' ? 'lets requests through' : 'refuses requests'} uncounted where the gateway says so, while Redis is dead, and counts again when it is back`, async () => {
      await using world = await gatewayWorld({ rateLimit: quota(mode) });
      assert.equal(await status(world), 200);

      await server.process.kill();
      try {
        const answers = await Promise.all(Array.from({ length: 10 }, () => world.ask('GET', '/v1/orders/7')));
        const expected = mode === 'allow' ? [200, undefined] : [503, 'rate-limit-unavailable'];
        for (const { status, code } of answers) assert.deepEqual([status, code], expected);
        assert.equal(world.events('rate-limit-store-state').at(-1)?.state, 'down');
      } finally {
        await server.process.start();
      }

      await eventually(() => assert.equal(world.events('rate-limit-store-state').at(-1)?.state, 'up'));
      assert.equal((await world.ask('GET', '/v1/orders/7')).headers.ratelimit, '"shared";r=4;t=60');
    });
  }

  for (const mode of ['allow', 'refuse'] as const) {
    it(`T60 ${mode === 'allow' ? 'lets requests through' : 'refuses requests'} within its time while Redis hangs, and counts again when it answers`, async () => {
      await using proxy = await FaultProxy.start(server.url);
      const url = proxy.address.replace('https:', 'rediss:');
      await using world = await gatewayWorld({
        rateLimit: quota(mode, { url, timeoutMs: 200, connectTimeoutMs: 500 }),
      });
      assert.equal(await status(world), 200);
      const expected = mode === 'allow' ? [200, undefined] : [503, 'rate-limit-unavailable'];

      proxy.stall();
      for (let round = 0; round < 3; round++) {
        const begunAt = performance.now();
        const answers = await Promise.all(Array.from({ length: 10 }, () => world.ask('GET', '/v1/orders/7')));
        const elapsedMs = performance.now() - begunAt;

        for (const { status, code } of answers) assert.deepEqual([status, code], expected);
        assert.ok(elapsedMs < 2000, `${elapsedMs} ms`);
      }
      assert.equal(world.events('rate-limit-store-state').at(-1)?.state, 'down');

      proxy.resume();
      await eventually(async () => assert.ok((await world.ask('GET', '/v1/orders/7')).headers.ratelimit));
    });
  }

  it('T60 does not keep a gateway from starting, or a request from its answer, while it takes connections and says nothing', async () => {
    const silent = createServer({ cert: readFileSync(server.cert), key: readFileSync(server.key) }, (socket) => {
      socket.on('error', () => {});
      socket.resume();
      silentSockets.push(socket);
    });
    const silentSockets: TLSSocket[] = [];
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const url = `rediss://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    try {
      await using world = await gatewayWorld({
        rateLimit: quota('refuse', { url, timeoutMs: 200, connectTimeoutMs: 500 }),
      });
      const begunAt = performance.now();
      for (let i = 0; i < 5; i++) assert.equal(await status(world), 503);

      assert.ok(silentSockets.length > 0);
      assert.ok(performance.now() - begunAt < 5000);
      assert.equal(world.events('rate-limit-store-state').at(-1)?.state, 'down');
    } finally {
      for (const socket of silentSockets) socket.destroy();
      silent.close();
    }
  });

  it('does not keep a gateway from starting while it is down', async () => {
    await server.process.kill();
    try {
      await using world = await gatewayWorld({ rateLimit: quota('refuse') });
      assert.equal(await status(world), 503);

      await server.process.start();

      await eventually(async () => assert.equal(await status(world), 200));
    } finally {
      await server.process.start();
    }
  });

  it('refuses a Redis that another CA vouches for, and one that does not know the password', async () => {
    await using foreign = await gatewayWorld({});
    const other = { ca: (await foreign.webCertificate('other', ['other.test'])).ca };
    const wrong = { password: secret.from({ get: async () => 'not the password' }, 'redis') };

    for (const [more, detail] of [
      [other, /self-signed|unable to|verif/i],
      [wrong, /WRONGPASS/],
    ] as const) {
      await using world = await gatewayWorld({ rateLimit: quota('refuse', more) });

      assert.equal(await status(world), 503);
      assert.match(world.events('rate-limit-store-state')[0]?.detail ?? '', detail);
    }
  });

  it('does not show its password', async () => {
    await using world = await gatewayWorld({ rateLimit: quota('refuse') });
    await status(world);
    await server.process.kill();
    await status(world);
    await server.process.start();

    assert.doesNotMatch(JSON.stringify(world.events('rate-limit-store-state')), new RegExp(server.password));
  });
});
