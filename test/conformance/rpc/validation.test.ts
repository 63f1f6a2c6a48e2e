import assert from 'node:assert/strict';
import { allow, badRequest, defineContract, type Handlers, serverStream, unary } from 'sallyport';
import { type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { forEachLane, lanesUnderTest } from '../../support/lanes.js';
import { all, failure } from './kit.js';

const Shop = defineContract('conformance.v1.Shop', {
  order: unary(
    z.object({ items: z.array(z.object({ cents: z.int() })), card: z.string().max(4) }),
    z.object({ id: z.string() }),
  ),
  watch: serverStream(z.object({ id: z.string() }), z.object({ state: z.enum(['open', 'sent']) })),
});

/** The same names with other schemas, as a peer might have that follows another version of the contract, or none. */
const Careless = defineContract('conformance.v1.Shop', {
  order: unary(z.unknown(), z.unknown()),
  watch: serverStream(z.unknown(), z.unknown()),
});

const good = { items: [{ cents: 1 }], card: '1234' };

forEachLane(() => {
  describe('validation', () => {
    let shop: Mesh;

    beforeEach(() => {
      shop = mesh(lanesUnderTest());
    });

    afterEach(() => shop.stop());

    async function serveStrict(handlers: Handlers<typeof Shop>) {
      const service = shop.service('shop', {
        authorize: [allow({ from: shop.id('web'), to: 'conformance.v1.Shop/*' })],
      });
      service.handle(Shop, handlers);
      await shop.start();
      return service;
    }

    async function serveCareless(handlers: Handlers<typeof Careless>) {
      const service = shop.service('shop', {
        authorize: [allow({ from: shop.id('web'), to: 'conformance.v1.Shop/*' })],
      });
      service.handle(Careless, handlers);
      await shop.start();
    }

    async function strictClient() {
      return (await shop.callerAs('web')).client(Shop, { service: 'shop' });
    }

    async function carelessClient() {
      return (await shop.callerAs('web')).client(Careless, { service: 'shop' });
    }

    const unserved = async function* () {};

    it('refuses a request that breaks the contract: names the field, never the value', async () => {
      let served = 0;
      const service = await serveStrict({ order: () => ({ id: String(served++) }), watch: unserved });
      const rejected: unknown[] = [];
      service.on('call-rejected', (event) => rejected.push({ ...event, at: 0 }));
      const client = await carelessClient();

      const error = await failure(
        client.order({ items: [{ cents: 1 }, { cents: 'four-1111' }], card: '4111-1111' }),
        'INVALID_ARGUMENT',
      );

      assert.match(error.message, /"items\[1\]\.cents": expected (int|number)/);
      assert.match(error.message, /"card": must be at most 4 characters/);
      assert.doesNotMatch(error.message, /1111/);
      assert.equal(served, 0);
      const fields = error.message.split('; ').map((part) => {
        const [, field = '', description = ''] = /^request field "(.*)": (.*)$/.exec(part) ?? [];
        return { field, description };
      });
      assert.equal(error.details.length, 1);
      assert.equal(error.details[0]?.typeUrl, badRequest(fields).typeUrl);
      assert.deepEqual([...(error.details[0]?.value ?? [])], [...badRequest(fields).value]);
      assert.deepEqual(rejected, [
        {
          type: 'call-rejected',
          at: 0,
          service: 'shop',
          peer: shop.id('web'),
          method: 'conformance.v1.Shop/order',
          status: 'INVALID_ARGUMENT',
          detail: error.message,
        },
      ]);
    });

    it('refuses a request of a stream that breaks the contract', async () => {
      await serveStrict({ order: () => ({ id: '' }), watch: unserved });
      const client = await carelessClient();

      const error = await failure(all(client.watch({ id: 7 })), 'INVALID_ARGUMENT');

      assert.match(error.message, /"id": expected string/);
    });

    it('hides from the caller what is wrong with a response, and tells the log', async () => {
      const service = await serveStrict({ order: () => ({ id: 4111 }) as never, watch: unserved });
      const failed: string[] = [];
      service.on('handler-failed', ({ detail }) => failed.push(detail));
      const client = await strictClient();

      const error = await failure(client.order(good), 'INTERNAL');

      assert.equal(error.message, 'response validation failed');
      assert.equal(failed.length, 1);
      assert.match(String(failed[0]), /"id": expected string/);
      assert.doesNotMatch(String(failed[0]), /4111/);
    });

    it('hides from the caller what is wrong with a streamed response', async () => {
      let released = false;
      await serveStrict({
        order: () => ({ id: '' }),
        async *watch() {
          try {
            yield { state: 'open' };
            yield { state: 'lost' } as never;
          } finally {
            released = true;
          }
        },
      });
      const client = await strictClient();
      const seen: string[] = [];

      const error = await failure(
        (async () => {
          for await (const { state } of client.watch({ id: '1' })) seen.push(state);
        })(),
        'INTERNAL',
      );

      assert.deepEqual(seen, ['open']);
      assert.equal(error.message, 'response validation failed');
      assert.equal(released, true);
    });

    it('sends no key that the response schema does not name', async () => {
      await serveStrict({ order: () => ({ id: '1', passwordHash: 'secret' }) as never, watch: unserved });
      const client = await carelessClient();

      assert.deepEqual(await client.order(good), { id: '1' });
    });

    it('refuses at the client a response that breaks the contract', async () => {
      await serveCareless({ order: () => ({ id: 4111 }), watch: unserved });
      const client = await strictClient();

      const error = await failure(client.order(good), 'INTERNAL');

      assert.match(error.message, /response field "id": expected string/);
      assert.doesNotMatch(error.message, /4111/);
    });

    it('ends the stream when a response breaks the contract at the client', async () => {
      let released = false;
      await serveCareless({
        order: () => ({}),
        async *watch() {
          try {
            for (;;) yield { state: 'lost' };
          } finally {
            released = true;
          }
        },
      });
      const client = await strictClient();

      await failure(all(client.watch({ id: '1' })), 'INTERNAL');
      while (!released) await new Promise((resolve) => setTimeout(resolve, 1));
    });
  });
});
