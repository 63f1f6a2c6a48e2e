import assert from 'node:assert/strict';
import { clientOn } from '@sallyport/transport-mtls/spi';
import { allow, bidi, type Client, defineContract, exactly, unary } from 'sallyport';
import { type FakeClock, fakeClock, IssuedSource, type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { failureOf } from '../support/attacks/traveller.js';
import { forEachLane, lanesUnderTest } from '../support/lanes.js';
import { RecordedEvents } from '../support/registry-context.js';

const Line = defineContract('test.line.v1.Line', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  chat: bidi(z.object({ n: z.int() }), z.object({ n: z.int() })),
});

const MINUTE_MS = 60_000;
/** How long the certificate of the service lives; that of its callers lives an hour. */
const TTL_MS = 5 * MINUTE_MS;
const NEVER_MS = 24 * 60 * MINUTE_MS;

forEachLane((lane) => {
  describe('a connection', () => {
    it('is not outlived by a stream: it ends with the certificates it was opened with, and calls go on', async () => {
      const clock = fakeClock();
      await using world = mesh({ clock, ...lanesUnderTest() });
      stock(world);
      await world.start();
      const web = (await world.callerAs('web')).client(Line, { service: 'stock' });
      const chat = failureOf(endless(web));
      let isOver = false;
      void chat.then(() => {
        isOver = true;
      });
      await web.say({ text: 'hello' });

      await clock.advance(0.95 * TTL_MS);
      const during = [isOver, await web.say({ text: 'during' })];
      await clock.advance(0.05 * TTL_MS);

      assert.equal((await chat).status, 'UNAVAILABLE');
      assert.deepEqual(during, [false, { text: 'during' }]);
    });

    it('is replaced by the client once it is old, and the calls on it come to their end', async () => {
      const clock = fakeClock();
      await using world = mesh({ clock, ...lanesUnderTest() });
      stock(world);
      await world.start();
      await using pool = await poolOf(world, clock, { maxConnectionAgeMs: MINUTE_MS });
      const first = await pool.connect();
      const answer = first.unary(
        { path: '/test.line.v1.Line/say', metadata: undefined, deadlineAt: Date.now() + 5000 },
        hello,
      );

      await clock.advance(0.85 * MINUTE_MS);
      const young = pool.live();
      await clock.advance(0.2 * MINUTE_MS);

      assert.equal(young, first);
      assert.equal(pool.live(), undefined);
      assert.equal(String((await answer.result).message), String(hello));
      assert.notEqual(await pool.connect(), first);
    });

    it('is replaced by the client before its certificate ends, however old it may get', async () => {
      const clock = fakeClock();
      await using world = mesh({ clock, ...lanesUnderTest() });
      stock(world);
      await world.start();
      await using pool = await poolOf(world, clock, { maxConnectionAgeMs: NEVER_MS, rotationGraceMs: 0.1 * TTL_MS });
      const first = await pool.connect();

      await clock.advance(0.8 * TTL_MS);
      const young = pool.live();
      await clock.advance(0.1 * TTL_MS);

      assert.equal(young, first);
      assert.equal(pool.live(), undefined);
    });
  });

  async function poolOf(world: Mesh, clock: FakeClock, options: Parameters<typeof clientOn>[1]) {
    const identity = world.authority.issue({ id: world.id('web') });
    const context = { events: new RecordedEvents(), clock };
    const tls = await new IssuedSource({ identity, bundlePem: world.authority.bundlePem }).open(context);
    const pool = clientOn([lane.name], options).open({ service: 'web', tls, ...context });
    const session = await world.registry.open({ service: 'web', tls, ...context });
    const [instance] = await session.list('stock');
    const [endpoint] = instance?.endpoints ?? [];
    assert.ok(instance && endpoint);
    const target = {
      key: 'stock',
      instance: instance.id,
      service: 'stock',
      endpoint,
      expect: exactly(world.id('stock')),
    };
    return {
      connect: () => pool.connect(target, Date.now() + 5000),
      live: () => pool.live(target),
      async [Symbol.asyncDispose]() {
        await pool.close();
        await session.close();
        tls.close();
      },
    };
  }
});

const hello = Buffer.from('{"text":"hello"}');

/** A service whose connections have no age of their own. */
function stock(world: Mesh): void {
  world
    .service('stock', {
      authorize: [allow({ from: world.id('web'), to: 'test.line.v1.Line/*' })],
      certificate: { ttlMs: TTL_MS, notBefore: Date.now() },
      server: { limits: { maxConnectionAgeMs: NEVER_MS, maxConnectionAgeGraceMs: 1000, idleTimeoutMs: NEVER_MS } },
    })
    .handle(Line, {
      say: (said) => said,
      async *chat(_, call) {
        yield { n: 1 };
        await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
      },
    });
}

async function endless(client: Client<typeof Line>): Promise<void> {
  for await (const _ of client.chat(silence(), { deadlineMs: 60_000 }));
}

async function* silence(): AsyncGenerator<{ n: number }> {
  yield { n: 1 };
  await new Promise((resolve) => setTimeout(resolve, 30_000).unref());
}
