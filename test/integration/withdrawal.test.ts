import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { httpsAgent, serverTlsOptions, systemClock } from '@sallyport/core/spi';
import { allow, bidi, defineContract, type SallyportEvent, type Service, unary } from 'sallyport';
import { IssuedSource, type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { failureOf } from '../support/attacks/traveller.js';
import { eventually } from '../support/eventually.js';
import { forEachLane, lanesUnderTest } from '../support/lanes.js';
import { RecordedEvents } from '../support/registry-context.js';

const Line = defineContract('test.line.v1.Line', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  chat: bidi(z.object({ n: z.int() }), z.object({ n: z.int() })),
});

const WHY = 'the agent has no entry for this workload any more';
/** What the threat model promises of a revocation; a withdrawal is the same from the other end. */
const EVICTION_MS = 1000;

forEachLane(() => {
  describe('a withdrawn identity', () => {
    it('ends the calls that the service serves, lets nobody in, and comes back with new material', async () => {
      await using world = mesh(lanesUnderTest());
      const { service, source, events } = stock(world);
      await world.start();
      const web = await world.callerAs('web');
      const line = web.client(Line, { service: 'stock' });
      const chat = failureOf(endless(line.chat(silence())));
      await line.say({ text: 'before' });
      const withdrawnAt = Date.now();

      source.withdraw(WHY);

      assert.equal((await chat).status, 'UNAVAILABLE');
      assert.ok(Date.now() - withdrawnAt < EVICTION_MS);
      assert.equal((await failureOf(line.say({ text: 'during' }, { deadlineMs: 500 }))).status, 'UNAVAILABLE');
      assert.deepEqual(service.readiness, { ready: false, reasons: [`the identity is not used: ${WHY}`] });
      assert.deepEqual(reasonsOf(events, 'identity-suspended'), ['withdrawn']);
      assert.deepEqual(reasonsOf(events, 'connection-closed-by-policy'), ['withdrawn']);
      await eventually(() => assert.ok(reasonsOf(events, 'handshake-refused').length > 0));
      assert.deepEqual([...new Set(reasonsOf(events, 'handshake-refused'))], ['withdrawn']);
      source.rotate(issued(world, 'stock'));
      assert.equal(service.readiness.ready, true);
      await eventually(async () => assert.deepEqual(await line.say({ text: 'after' }), { text: 'after' }), 5000);
    });

    it('ends the calls that the service makes, makes no new ones, and comes back with new material', async () => {
      await using world = mesh(lanesUnderTest());
      stock(world);
      const source = new IssuedSource(issued(world, 'web'));
      const web = world.service('web', { tls: source } as object);
      const events = eventsOf(web);
      const line = web.client(Line, { service: 'stock' });
      await world.start();
      const chat = failureOf(endless(line.chat(silence())));
      await line.say({ text: 'before' });
      const withdrawnAt = Date.now();

      source.withdraw(WHY);

      assert.equal((await chat).status, 'UNAVAILABLE');
      assert.ok(Date.now() - withdrawnAt < EVICTION_MS);
      const refused = await failureOf(line.say({ text: 'during' }, { deadlineMs: 500 }));
      assert.equal(refused.status, 'UNAVAILABLE');
      assert.match(refused.message, new RegExp(WHY));
      assert.deepEqual(reasonsOf(events, 'connection-closed-by-policy'), ['withdrawn']);
      source.rotate(issued(world, 'web'));
      assert.deepEqual(await line.say({ text: 'after' }), { text: 'after' });
    });
  });
});

describe('a withdrawn identity of a client of HTTPS', () => {
  it('ends its requests, makes no new ones, and comes back with new material', async () => {
    await using world = mesh();
    const context = { events: new RecordedEvents(), clock: systemClock };
    const names = { ip: ['127.0.0.1'] };
    const own = await new IssuedSource({
      identity: world.authority.issue({ id: world.id('registry'), ...names }),
      bundlePem: world.authority.bundlePem,
    }).open(context);
    const server = createServer(serverTlsOptions(own.current()), (incoming, response) => {
      if (incoming.url !== '/held') response.end('ok');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const source = new IssuedSource(issued(world, 'web'));
    const handle = await source.open(context);
    const agent = httpsAgent(handle);
    const get = (path: string) =>
      new Promise<string>((resolve) => {
        request({ host: '127.0.0.1', port, path, agent }, (response) => {
          response.resume().once('end', () => resolve('answered'));
        })
          .once('error', (error) => resolve(error.message))
          .end();
      });
    assert.equal(await get('/'), 'answered');
    const held = get('/held');
    await once(server, 'request');

    source.withdraw(WHY);

    assert.equal(await held, 'socket hang up');
    assert.match(await get('/'), new RegExp(WHY));
    source.rotate(issued(world, 'web'));
    assert.equal(await get('/'), 'answered');
    agent.destroy();
    handle.close();
    own.close();
    server.closeAllConnections();
    server.close();
  });
});

interface Stock {
  readonly service: Service;
  readonly source: IssuedSource;
  readonly events: readonly SallyportEvent[];
}

/** A service on a source that the test can take away. */
function stock(world: Mesh): Stock {
  const source = new IssuedSource(issued(world, 'stock'));
  const service = world
    .service('stock', {
      tls: source,
      authorize: [allow({ from: world.id('web'), to: 'test.line.v1.Line/*' })],
    } as object)
    .handle(Line, {
      say: (said) => said,
      async *chat(requests) {
        for await (const { n } of requests) yield { n };
      },
    });
  return { service, source, events: eventsOf(service) };
}

function issued(world: Mesh, name: string) {
  return { identity: world.authority.issue({ id: world.id(name) }), bundlePem: world.authority.bundlePem };
}

function eventsOf(service: Service): readonly SallyportEvent[] {
  const events: SallyportEvent[] = [];
  service.on('*', (event) => events.push(event));
  return events;
}

function reasonsOf(events: readonly SallyportEvent[], type: SallyportEvent['type']): unknown[] {
  return events.filter((event) => event.type === type).map((event) => 'reason' in event && event.reason);
}

async function* silence(): AsyncGenerator<{ n: number }> {
  yield { n: 1 };
  await new Promise((resolve) => setTimeout(resolve, 10_000).unref());
}

async function endless(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}
