import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { TLSSocket } from 'node:tls';
import { allow, type Call, CallError, type StatusName } from '@sallyport/core';
import { type GatewayOptions, gateway, httpRoute, route } from '@sallyport/gateway';
import type { IdentityFiles } from '@sallyport/pki';
import { fakeClock } from '@sallyport/testing';
import { type ClientOptions, WebSocket } from 'ws';
import { eventually } from '../../support/eventually.js';
import { httpUpstream, rawUpstream } from '../../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../../support/gateway/world.js';

const SECOND = 1000;
const orders = { service: 'orders', public: true } as const;
const routes = [
  route('GET', '/v1/orders/:id', Orders.get, orders),
  route('POST', '/v1/orders/:id', Orders.create, orders),
  route('PUT', '/v1/orders/:id', Orders.create, { ...orders, idempotent: true }),
  route('GET', '/v1/fresh/:id', Orders.get, { ...orders, idempotent: false }),
  route('GET', '/v1/watch/:id', Orders.watch, orders),
  route('GET', '/v1/chat/:id', Orders.chat, orders),
];

/** A service that fails as often as it is told, and a count of what it has seen. */
class Failing {
  seen: Call[] = [];
  status: StatusName | undefined;
  /** Calls that will fail. */
  left: number;

  readonly handlers = {
    get: async ({ id }: { id: string }, call: Call) => this.#answer(call, id),
    create: async ({ text }: { text: string }, call: Call) => this.#answer(call, text),
    watch: (_: unknown, call: Call) => this.#stream(call),
  };

  constructor(status?: StatusName, left = Number.POSITIVE_INFINITY) {
    this.status = status;
    this.left = left;
  }

  async *#stream(call: Call) {
    this.#answer(call, '');
    yield { n: 1 };
  }

  #answer(call: Call, text: string) {
    this.seen.push(call);
    if (this.status !== undefined && this.left-- > 0) throw new CallError(this.status, 'as told');
    return { text };
  }
}

const body = { text: 'a' };

describe('a request whose service is not available', () => {
  for (const [method, path, seen] of [
    ['GET', '/v1/orders/7', 2],
    ['PUT', '/v1/orders/7', 2],
    ['POST', '/v1/orders/7', 1],
    ['GET', '/v1/fresh/7', 1],
    ['GET', '/v1/watch/7', 1],
  ] as const) {
    it(`${method} ${path} is made ${seen === 1 ? 'once: a second time might do harm' : 'once more, and not for ever'}`, async () => {
      const service = new Failing('UNAVAILABLE');
      await using world = await gatewayWorld({ routes, handlers: service.handlers });

      const { status, code } = await world.ask(method, path, method === 'GET' ? {} : { body });

      assert.deepEqual([status, code], [503, 'upstream-unavailable']);
      assert.equal(service.seen.length, seen);
    });
  }

  it('is answered where the second time goes well', async () => {
    const service = new Failing('UNAVAILABLE', 1);
    await using world = await gatewayWorld({ routes, handlers: service.handlers });

    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
  });

  for (const status of ['INTERNAL', 'ABORTED', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED', 'NOT_FOUND'] as const) {
    it(`is not made again after ${status}, which is an answer`, async () => {
      const service = new Failing(status);
      await using world = await gatewayWorld({ routes, handlers: service.handlers });

      await world.ask('GET', '/v1/orders/7');

      assert.equal(service.seen.length, 1);
    });
  }

  it('whose connection broke under it goes to another instance, if it may', async () => {
    await using broken = await breaking();

    const { status } = await broken.world.ask('GET', '/v1/orders/7');

    assert.equal(status, 200);
    assert.equal(broken.seen(), 2);
  });

  it('whose connection broke under it is never sent again if that may do harm', async () => {
    await using broken = await breaking();

    const { status, code } = await broken.world.ask('POST', '/v1/orders/7', { body });

    assert.deepEqual([status, code], [503, 'upstream-unavailable']);
    assert.equal(broken.seen(), 1);
  });

  it('whose HTTP connection broke under it goes to another instance, if it may', async () => {
    const seen: string[] = [];
    const http = { upstream: 'files', public: true } as const;
    await using world = await gatewayWorld({
      routes: [httpRoute('GET', '/files', http), httpRoute('POST', '/files', http)],
    });
    const breakOff = (socket: TLSSocket) => {
      socket.once('data', (data) => {
        seen.push(data.toString().split(' ', 1)[0] ?? '');
        socket.destroy();
      });
    };
    await using _one = await rawUpstream(world.mesh, breakOff);
    await using _two = await rawUpstream(world.mesh, breakOff);

    const safe = await world.ask('GET', '/files');
    const unsafe = await world.ask('POST', '/files', { body });

    assert.deepEqual([safe.status, unsafe.status], [503, 503]);
    assert.deepEqual(seen, ['GET', 'GET', 'POST']);
  });

  /** Two instances; the first call cuts off the gateway from the one that it has reached, and is never answered there. */
  async function breaking() {
    let seen = 0;
    let serial = '';
    const cutters: (() => void)[] = [];
    const open = async (options: GatewayOptions, identity: IdentityFiles) => {
      serial = new X509Certificate(readFileSync(identity.cert)).serialNumber;
      return gateway(options);
    };
    const answerOf = (instance: number) => async () => {
      if (++seen > 1) return { text: 'again' };
      cutters[instance]?.();
      return new Promise<{ text: string }>(() => {});
    };
    const handlersOf = (instance: number) => ({ get: answerOf(instance), create: answerOf(instance) });
    const world = await gatewayWorld({ routes, open });
    const services = [0, 1].map((instance) => {
      const service = world.mesh.service('billing', {
        authorize: [allow({ from: world.mesh.id('gateway'), to: 'test.orders.v1.Orders/*' })],
      });
      service.handle(Orders, { ...unused, ...handlersOf(instance) });
      cutters.push(() => world.mesh.rotate(service, { crlPems: [world.mesh.authority.crl({ revoked: [serial] })] }));
      return service;
    });
    await Promise.all(services.map((service) => service.start()));
    await world.gateway.replace({
      routes: [
        route('GET', '/v1/orders/:id', Orders.get, { service: 'billing', public: true }),
        route('POST', '/v1/orders/:id', Orders.create, { service: 'billing', public: true }),
      ],
    });
    return { world, seen: () => seen, [Symbol.asyncDispose]: () => world[Symbol.asyncDispose]() };
  }
});

const unused = {
  get: () => ({ text: '' }),
  create: () => ({ text: '' }),
  async *watch() {
    yield { n: 0 };
  },
  upload: () => ({ sum: 0 }),
  async *chat() {
    yield { n: 0 };
  },
};

describe('the time that a service has', () => {
  it('is that of the route', async () => {
    const service = new Failing();
    await using world = await gatewayWorld({
      routes: [route('GET', '/v1/orders/:id', Orders.get, { ...orders, timeoutMs: 2 * SECOND })],
      handlers: service.handlers,
    });

    const askedAt = Date.now();
    await world.ask('GET', '/v1/orders/7');

    const leftMs = (service.seen[0]?.deadlineAt ?? 0) - askedAt;
    assert.ok(leftMs > SECOND && leftMs < 3 * SECOND, `${leftMs} ms`);
  });

  it('is never more than is left of the request', async () => {
    const service = new Failing();
    await using world = await gatewayWorld({
      routes,
      handlers: service.handlers,
      limits: { requestTimeoutMs: 4 * SECOND },
    });

    const askedAt = Date.now();
    await world.ask('GET', '/v1/orders/7');

    const leftMs = (service.seen[0]?.deadlineAt ?? 0) - askedAt;
    assert.ok(leftMs > SECOND && leftMs < 5 * SECOND, `${leftMs} ms`);
  });

  it('does not begin anew with a second attempt', async () => {
    const service = new Failing('UNAVAILABLE', 1);
    await using world = await gatewayWorld({ routes, handlers: service.handlers });

    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);

    const [first, second] = service.seen.map(({ deadlineAt }) => deadlineAt);
    assert.ok(Math.abs((second ?? 0) - (first ?? 0)) < 100, `${first} and ${second}`);
  });
});

describe('the breaker of a service', () => {
  const breaker = { failures: 3, openMs: 5 * SECOND };

  async function tripped(world: GatewayWorld): Promise<void> {
    for (let i = 0; i < breaker.failures; i++) await world.ask('POST', '/v1/orders/7', { body });
    assert.equal(world.events('breaker-state').at(-1)?.state, 'open');
  }

  it('opens when calls do not find it: the next ones are answered at once, and never reach it', async () => {
    const service = new Failing('UNAVAILABLE');
    await using world = await gatewayWorld({ routes, breaker, clock: fakeClock(), handlers: service.handlers });
    await tripped(world);

    const { status, code, headers } = await world.ask('POST', '/v1/orders/7', { body });
    const stream = await world.ask('GET', '/v1/watch/7');

    assert.deepEqual([status, code, headers['retry-after']], [503, 'upstream-unavailable', '5']);
    assert.equal(stream.status, 503);
    assert.equal(service.seen.length, breaker.failures);
    const [event] = world.events('breaker-state');
    assert.equal(event?.upstream, 'orders');
    assert.match(event?.detail ?? '', /^3 of 3 calls did not find it/);
  });

  it('refuses a WebSocket before its handshake', async () => {
    const service = new Failing('UNAVAILABLE');
    await using world = await gatewayWorld({ routes, breaker, clock: fakeClock(), handlers: service.handlers });
    await tripped(world);

    const options = { ca: world.ca, servername: 'shop.test', headers: { host: 'shop.test' } } as ClientOptions;
    const socket = new WebSocket(`wss://127.0.0.1:${world.port}/v1/chat/1`, options);
    socket.on('error', () => {});
    const [request, answer] = await once(socket, 'unexpected-response');

    assert.equal(answer.statusCode, 503);
    assert.equal(answer.headers['retry-after'], '5');
    request.destroy();
  });

  it('lets one call through after its time, and all when that one goes well', async () => {
    const service = new Failing('UNAVAILABLE');
    const clock = fakeClock();
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let probes = 0;
    const create = async (message: { text: string }, call: Call) => {
      if (service.status !== undefined) return service.handlers.create(message, call);
      probes++;
      await held;
      return { text: 'back' };
    };
    await using world = await gatewayWorld({ routes, breaker, clock, handlers: { create } });
    await tripped(world);
    service.status = undefined;

    await clock.advance(breaker.openMs);
    const probe = world.ask('POST', '/v1/orders/7', { body });
    await eventually(() => assert.equal(probes, 1));
    const others = await Promise.all([1, 2, 3].map(() => world.ask('POST', '/v1/orders/7', { body })));
    release();

    assert.equal((await probe).status, 200);
    assert.deepEqual(
      others.map(({ status }) => status),
      [503, 503, 503],
    );
    assert.equal(probes, 1);
    assert.equal((await world.ask('POST', '/v1/orders/7', { body })).status, 200);
    assert.deepEqual(
      world.events('breaker-state').map(({ state }) => state),
      ['open', 'closed'],
    );
  });

  it('stays open when that one fails too', async () => {
    const service = new Failing('UNAVAILABLE');
    const clock = fakeClock();
    await using world = await gatewayWorld({ routes, breaker, clock, handlers: service.handlers });
    await tripped(world);

    await clock.advance(breaker.openMs);
    await world.ask('POST', '/v1/orders/7', { body });
    await world.ask('POST', '/v1/orders/7', { body });

    assert.equal(service.seen.length, breaker.failures + 1);
  });

  it('stays closed while most calls go well', async () => {
    const service = new Failing();
    await using world = await gatewayWorld({ routes, breaker, clock: fakeClock(), handlers: service.handlers });

    for (let i = 0; i < 12; i++) {
      service.status = i % 3 === 0 ? 'UNAVAILABLE' : undefined;
      await world.ask('POST', '/v1/orders/7', { body });
    }

    assert.equal(service.seen.length, 12);
    assert.deepEqual(world.events('breaker-state'), []);
  });

  it('forgets what was long ago', async () => {
    const service = new Failing('UNAVAILABLE');
    const clock = fakeClock();
    await using world = await gatewayWorld({ routes, breaker, clock, handlers: service.handlers });

    for (let i = 0; i < 6; i++) {
      await world.ask('POST', '/v1/orders/7', { body });
      await clock.advance(11 * SECOND);
    }

    assert.deepEqual(world.events('breaker-state'), []);
  });

  for (const status of ['INTERNAL', 'UNKNOWN', 'UNAUTHENTICATED', 'NOT_FOUND', 'PERMISSION_DENIED'] as const) {
    it(`is not opened by ${status}: one client that knows how must not shut the service for all`, async () => {
      const service = new Failing(status);
      await using world = await gatewayWorld({ routes, breaker, handlers: service.handlers });

      for (let i = 0; i < 8; i++) await world.ask('POST', '/v1/orders/7', { body });

      assert.equal(service.seen.length, 8);
      assert.deepEqual(world.events('breaker-state'), []);
    });
  }

  it('opens when nobody gets an answer in time', async () => {
    const service = new Failing('DEADLINE_EXCEEDED');
    await using world = await gatewayWorld({ routes, breaker, handlers: service.handlers });

    await tripped(world);
  });

  it('is not opened by requests that take too long while others are answered', async () => {
    const service = new Failing('DEADLINE_EXCEEDED');
    await using world = await gatewayWorld({ routes, breaker, handlers: service.handlers });

    for (let i = 0; i < 12; i++) {
      service.status = i === 0 ? undefined : 'DEADLINE_EXCEEDED';
      await world.ask('POST', '/v1/orders/7', { body });
    }

    assert.equal(service.seen.length, 12);
    assert.deepEqual(world.events('breaker-state'), []);
  });

  it('is not opened by clients that leave', async () => {
    let waiting = 0;
    const create = (_: unknown, { signal }: Call) => {
      waiting++;
      return new Promise<never>((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(new Error('gone'))),
      );
    };
    await using world = await gatewayWorld({ routes, breaker, handlers: { create } });

    for (let i = 0; i < 6; i++) {
      const socket = await world.dial();
      socket.write(
        `POST /v1/orders/7 HTTP/1.1\r\nhost: shop.test\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"text":"a"}`,
      );
      await eventually(() => assert.equal(waiting, i + 1));
      socket.destroy();
    }

    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
    assert.deepEqual(world.events('breaker-state'), []);
  });

  it('opens for its service alone', async () => {
    const service = new Failing('UNAVAILABLE');
    const http = { upstream: 'files', public: true } as const;
    await using world = await gatewayWorld({
      routes: [...routes, httpRoute('GET', '/files', http)],
      breaker,
      handlers: service.handlers,
    });
    await using _ = await httpUpstream(world.mesh, (_request, response) => response.end('here'));
    await tripped(world);

    assert.equal((await world.ask('GET', '/files')).status, 200);
  });

  it('opens for an HTTP service that says 503, not for one that says 500', async () => {
    let seen = 0;
    let status = 500;
    const http = { upstream: 'files', public: true } as const;
    await using world = await gatewayWorld({
      routes: [httpRoute('POST', '/files', http)],
      breaker,
      clock: fakeClock(),
    });
    await using _ = await httpUpstream(world.mesh, (request, response) => {
      seen++;
      request.resume();
      response.writeHead(status).end();
    });

    for (let i = 0; i < 4; i++) assert.equal((await world.ask('POST', '/files', { body })).status, 502);
    assert.deepEqual(world.events('breaker-state'), []);
    status = 503;
    for (let i = 0; i < 4; i++) await world.ask('POST', '/files', { body });
    const before = seen;
    const { headers } = await world.ask('POST', '/files', { body });

    assert.equal(seen, before);
    assert.equal(headers['retry-after'], '5');
  });

  it('leaves what a cache knows', async () => {
    const service = new Failing();
    const cache = { ttlMs: 60 * SECOND };
    await using world = await gatewayWorld({
      routes: [...routes.slice(1), route('GET', '/v1/orders/:id', Orders.get, { ...orders, cache })],
      breaker,
      clock: fakeClock(),
      handlers: service.handlers,
    });
    await world.ask('GET', '/v1/orders/7');
    service.status = 'UNAVAILABLE';
    await tripped(world);

    assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
    assert.equal((await world.ask('GET', '/v1/orders/8')).status, 503);
  });

  it('asks who it is first: strangers do not learn how the service fares', async () => {
    const service = new Failing('UNAVAILABLE');
    const auth = { kind: 'test', check: async () => [], open: async () => nobody };
    await using world = await gatewayWorld({
      routes: [...routes, route('GET', '/private/:id', Orders.get, { service: 'orders', auth })],
      breaker,
      handlers: service.handlers,
    });
    await tripped(world);

    assert.equal((await world.ask('GET', '/private/7')).status, 401);
  });
});

const nobody = {
  challenges: ['Test'],
  authenticate: async () => ({ outcome: 'absent' as const }),
  close: async () => {},
};
