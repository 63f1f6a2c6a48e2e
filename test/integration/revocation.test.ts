import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { httpsAgent, serverTlsOptions, systemClock } from '@sallyport/core/spi';
import type { Authority } from '@sallyport/pki';
import { allow, bidi, defineContract, type SallyportEvent, type Service, unary } from 'sallyport';
import { type IssuedMaterial, IssuedSource, type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { failureOf } from '../support/attacks/traveller.js';
import { eventually } from '../support/eventually.js';
import { forEachLane, lanesUnderTest } from '../support/lanes.js';
import { RecordedEvents } from '../support/registry-context.js';

const Line = defineContract('test.line.v1.Line', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  chat: bidi(z.object({ n: z.int() }), z.object({ n: z.int() })),
});

/** The promise of T10. */
const EVICTION_MS = 1000;
const HOUR_MS = 3_600_000;
/** Enough for two handshakes on a busy machine. */
const GRACE_MS = 4000;

forEachLane(() => {
  describe('a revoked authority', () => {
    it('ends the calls of the peers below it within a second and no others', async () => {
      await using world = mesh(lanesUnderTest());
      const pki = authorities(world);
      const stock = pki.service('stock', pki.other);
      pki.service('web', pki.doomed);
      pki.service('shop', pki.other);
      await world.start();
      const [web, shop] = [pki.caller('web'), pki.caller('shop')];
      const [doomed, kept] = [failureOf(endless(web)), endless(shop)];
      await eventually(() => assert.equal(stock.chats(), 2));
      const revokedAt = Date.now();

      pki.revoke('stock');

      assert.equal((await doomed).status, 'UNAVAILABLE');
      assert.ok(Date.now() - revokedAt < EVICTION_MS);
      assert.deepEqual(closed(stock.events), [`revoked ${world.id('web')}`]);
      assert.equal((await failureOf(web.say({ text: 'again' }))).status, 'UNAVAILABLE');
      assert.deepEqual(await shop.say({ text: 'still here' }), { text: 'still here' });
      stock.hangUp();
      await kept;
    });

    it('ends the calls to the servers below it within a second and no others', async () => {
      await using world = mesh(lanesUnderTest());
      const pki = authorities(world);
      pki.service('stock', pki.doomed);
      const annex = pki.service('annex', pki.other);
      const web = pki.service('web', pki.other);
      await world.start();
      const [toDoomed, toKept] = [pki.caller('web', 'stock'), pki.caller('web', 'annex')];
      const [doomed, kept] = [failureOf(endless(toDoomed)), endless(toKept)];
      await eventually(() => assert.equal(annex.chats(), 1));
      await toDoomed.say({ text: 'hello' });
      const revokedAt = Date.now();

      pki.revoke('web');

      assert.equal((await doomed).status, 'UNAVAILABLE');
      assert.ok(Date.now() - revokedAt < EVICTION_MS);
      assert.deepEqual(closed(web.events), [`revoked ${world.id('stock')}`]);
      assert.equal((await failureOf(toDoomed.say({ text: 'again' }))).status, 'UNAVAILABLE');
      assert.deepEqual(await toKept.say({ text: 'still here' }), { text: 'still here' });
      annex.hangUp();
      await kept;
    });
  });

  describe('a revocation list that is not renewed', () => {
    it('is told of before its time is over, and then ends what is open and keeps everybody out', async () => {
      await using world = mesh(lanesUnderTest());
      const { stock, web, renew } = await withList(world, {});
      const chat = failureOf(endless(web));
      await eventually(() => assert.deepEqual(stalenessOf(stock.events), ['runs out', 'runs out']));
      assert.deepEqual(await web.say({ text: 'in time' }), { text: 'in time' });

      assert.equal((await chat).status, 'UNAVAILABLE');

      await eventually(() => assert.deepEqual(stalenessOf(stock.events), ['runs out', 'runs out', 'has run out']));
      assert.deepEqual(closed(stock.events), [`revocation-unknown ${world.id('web')}`]);
      assert.deepEqual(stock.service.readiness.reasons, [
        'the revocation list of O=test.sallyport, CN=Sallyport root has run out',
      ]);
      await failureOf(web.say({ text: 'too late' }));
      await eventually(() => assert.ok(refusals(stock.events).length > 0));
      assert.deepEqual([...new Set(refusals(stock.events))], ['revocation-unknown']);
      renew();
      assert.equal(stock.service.readiness.ready, true);
      await eventually(async () => assert.deepEqual(await web.say({ text: 'back' }), { text: 'back' }), 5000);
    });

    it('keeps the revoked out and lets the others in during its grace, and nobody after it', async () => {
      await using world = mesh(lanesUnderTest());
      const revoked = world.authority.issue({ id: world.id('web') });
      const { stock, web, nextUpdate } = await withList(world, {
        revoked: [revoked.serial],
        revocationGraceMs: GRACE_MS,
      });
      const chat = failureOf(endless(web));
      await passes(nextUpdate);
      // How often it was told before depends on how long the start took.
      await eventually(() =>
        assert.ok(stock.events.some(({ type, at }) => type === 'revocation-stale' && at >= nextUpdate)),
      );

      const late = await failureOf(callAs(world, revoked));
      const good = await callAs(world, world.authority.issue({ id: world.id('web') }));

      assert.equal(late.status, 'UNAVAILABLE');
      assert.deepEqual(good, { text: 'hello' });
      assert.deepEqual([...new Set(refusals(stock.events))], ['revoked']);
      assert.equal(stock.service.readiness.ready, true);
      const { status, message } = await chat;
      assert.equal(status, 'UNAVAILABLE', message);
      assert.ok(Date.now() >= nextUpdate + GRACE_MS);
      // The connection and the list have clocks of their own.
      await eventually(() => assert.equal(stalenessOf(stock.events).at(-1), 'has run out'));
      assert.equal(stock.service.readiness.ready, false);
    });

    it('keeps out who stands below a revoked authority, or below one without a list, during its grace', async () => {
      await using world = mesh(lanesUnderTest());
      const { authority } = world;
      const revoked = authority.intermediate();
      const unlisted = authority.intermediate();
      const { stock, nextUpdate } = await withList(world, {
        revoked: [serialOf(revoked)],
        lists: [revoked.crl({ revoked: [] })],
        bundlePem: authority.bundlePem + revoked.certificatePem,
        revocationGraceMs: 60_000,
      });
      await passes(nextUpdate);

      await failureOf(callAs(world, revoked.issue({ id: world.id('web') })));
      await failureOf(callAs(world, unlisted.issue({ id: world.id('web') })));
      const good = await callAs(world, authority.issue({ id: world.id('web') }));

      assert.deepEqual(good, { text: 'hello' });
      assert.deepEqual([...new Set(refusals(stock.events))].sort(), ['revocation-unknown', 'revoked']);
    });
  });
});

describe('an older revocation list', () => {
  it('does not take the place of a newer one: who it forgets stays out', async () => {
    await using world = mesh();
    const stock = serving(world, 'stock');
    await world.start();
    const credentials = world.authority.issue({ id: world.id('web') });
    const older = world.authority.crl({ revoked: [], number: 7 });
    world.rotate(stock.service, { crlPems: [world.authority.crl({ revoked: [credentials.serial], number: 8 })] });

    world.rotate(stock.service, { crlPems: [older] });

    assert.match(
      failedRotations(stock.events).join(),
      /^the revocation list of O=test.sallyport, CN=Sallyport root is older than the one in use$/,
    );
    await failureOf(callAs(world, credentials));
    assert.deepEqual([...new Set(refusals(stock.events))], ['revoked']);
  });
});

describe('a registry whose certificate is revoked', () => {
  for (const { name, revoke } of [
    { name: 'itself', revoke: (issuer: Authority, serial: string) => ({ root: [], middle: [serial], issuer }) },
    { name: 'by its authority', revoke: (issuer: Authority) => ({ root: [serialOf(issuer)], middle: [], issuer }) },
  ]) {
    it(`is asked no more, and the request that waits for it ends (${name})`, async () => {
      await using world = mesh();
      const { authority } = world;
      const middle = authority.intermediate();
      const names = { ip: ['127.0.0.1'] };
      const identity = middle.issue({ id: world.id('registry'), ...names });
      const registry = await listening(world, identity);
      const bundlePem = authority.bundlePem + middle.certificatePem;
      const own = authority.issue({ id: world.id('web') });
      const lists = ({ root, middle: below }: { root: string[]; middle: string[] }) => ({
        identity: own,
        bundlePem,
        crlPems: [authority.crl({ revoked: root }), middle.crl({ revoked: below })],
      });
      const source = new IssuedSource(lists({ root: [], middle: [] }));
      const handle = await source.open({ events: new RecordedEvents(), clock: systemClock });
      const agent = httpsAgent(handle);
      const get = getter(registry.port, agent);
      assert.equal(await get('/'), 'answered');
      const waiting = get('/held');
      await once(registry.server, 'request');
      const revokedAt = Date.now();

      source.rotate(lists(revoke(middle, identity.serial)));

      assert.equal(await waiting, 'socket hang up');
      assert.ok(Date.now() - revokedAt < EVICTION_MS);
      assert.notEqual(await get('/'), 'answered');
      source.rotate(lists({ root: [], middle: [] }));
      assert.equal(await get('/'), 'answered');
      agent.destroy();
      handle.close();
      registry.close();
    });
  }
});

interface Served {
  readonly service: Service;
  readonly events: readonly SallyportEvent[];
  /** Chats under way. */
  chats(): number;
  /** Ends them well. */
  hangUp(): void;
}

function serving(world: Mesh, name: string, source?: IssuedSource): Served {
  let chats = 0;
  let hangUp = (): void => undefined;
  const over = new Promise<void>((resolve) => {
    hangUp = resolve;
  });
  const service = world
    .service(name, {
      authorize: [allow({ from: ['web', 'shop'].map((caller) => world.id(caller)), to: 'test.line.v1.Line/*' })],
      ...(source ? { tls: source } : {}),
    } as object)
    .handle(Line, {
      say: (said) => said,
      async *chat(_, call) {
        chats++;
        yield { n: 1 };
        await Promise.race([over, new Promise((resolve) => call.signal.addEventListener('abort', resolve))]);
        chats--;
      },
    });
  const events: SallyportEvent[] = [];
  service.on('*', (event) => events.push(event));
  return { service, events, chats: () => chats, hangUp };
}

/** Two intermediates, one of which will be revoked; everybody trusts the root and has the lists of all three. */
function authorities(world: Mesh) {
  const { authority } = world;
  const doomed = authority.intermediate();
  const other = authority.intermediate();
  const bundlePem = authority.bundlePem + doomed.certificatePem + other.certificatePem;
  const members = new Map<string, { served: Served; source: IssuedSource; material: IssuedMaterial }>();
  const lists = (revoked: string[]) => [
    authority.crl({ revoked }),
    doomed.crl({ revoked: [] }),
    other.crl({ revoked: [] }),
  ];
  return {
    doomed,
    other,
    service(name: string, issuer: Authority): Served {
      const material = { identity: issuer.issue({ id: world.id(name) }), bundlePem, crlPems: lists([]) };
      const source = new IssuedSource(material);
      const served = serving(world, name, source);
      members.set(name, { served, source, material });
      return served;
    },
    caller(name: string, service = 'stock') {
      const member = members.get(name);
      assert.ok(member);
      return member.served.service.client(Line, { service });
    },
    /** The new list of the root, at one of the members. */
    revoke(name: string): void {
      const member = members.get(name);
      assert.ok(member);
      member.source.rotate({ ...member.material, crlPems: lists([serialOf(doomed)]) });
    },
  };
}

interface ListOptions {
  readonly revoked?: readonly string[];
  readonly lists?: readonly string[];
  readonly bundlePem?: string;
  readonly revocationGraceMs?: number;
}

/** A service whose list of the root runs out in one to two seconds, and a caller of it. */
async function withList(world: Mesh, { revoked = [], lists = [], ...more }: ListOptions) {
  // Lists tell their times in whole seconds.
  const nextUpdate = Math.ceil(Date.now() / 1000) * 1000 + 1000;
  const { authority } = world;
  const material = { identity: authority.issue({ id: world.id('stock') }), bundlePem: authority.bundlePem, ...more };
  const listed = (until: number) => [
    authority.crl({ revoked, nextUpdate: until, thisUpdate: until - 10_000 }),
    ...lists,
  ];
  const source = new IssuedSource({ ...material, crlPems: listed(nextUpdate) });
  const stock = serving(world, 'stock', source);
  await world.start();
  const web = (await world.callerAs('web')).client(Line, { service: 'stock' });
  return {
    stock,
    web,
    nextUpdate,
    renew: () =>
      source.rotate({ ...material, crlPems: [authority.crl({ revoked, nextUpdate: Date.now() + HOUR_MS })] }),
  };
}

/** Calls the stock once, on a connection of its own. */
async function callAs(world: Mesh, identity: IssuedMaterial['identity']): Promise<unknown> {
  const tls = new IssuedSource({ identity, bundlePem: world.authority.bundlePem });
  const caller = world.service('web', { tls } as object);
  await caller.start();
  try {
    return await caller.client(Line, { service: 'stock' }).say({ text: 'hello' }, { deadlineMs: 1000 });
  } finally {
    await caller.stop();
  }
}

async function listening(world: Mesh, identity: IssuedMaterial['identity']) {
  const context = { events: new RecordedEvents(), clock: systemClock };
  const own = await new IssuedSource({ identity, bundlePem: world.authority.bundlePem }).open(context);
  const server = createServer(serverTlsOptions(own.current()), (incoming, response) => {
    if (incoming.url !== '/held') response.end('ok');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    server,
    port: (server.address() as AddressInfo).port,
    close() {
      own.close();
      server.closeAllConnections();
      server.close();
    },
  };
}

function getter(port: number, agent: ReturnType<typeof httpsAgent>) {
  return (path: string): Promise<string> =>
    new Promise((resolve) => {
      request({ host: '127.0.0.1', port, path, agent }, (response) => {
        response.resume().once('end', () => resolve('answered'));
      })
        .once('error', (error) => resolve(error.message))
        .end();
    });
}

function serialOf({ certificatePem }: Authority): string {
  return new X509Certificate(certificatePem).serialNumber;
}

function closed(events: readonly SallyportEvent[]): string[] {
  return events.flatMap((event) =>
    event.type === 'connection-closed-by-policy' ? [`${event.reason} ${event.peer}`] : [],
  );
}

function refusals(events: readonly SallyportEvent[]): string[] {
  return events.flatMap((event) => (event.type === 'handshake-refused' ? [event.reason] : []));
}

function failedRotations(events: readonly SallyportEvent[]): string[] {
  return events.flatMap((event) => (event.type === 'rotation-failed' ? [event.detail] : []));
}

function stalenessOf(events: readonly SallyportEvent[]): string[] {
  return events.flatMap((event) =>
    event.type === 'revocation-stale' ? [event.remainingMs === 0 ? 'has run out' : 'runs out'] : [],
  );
}

async function endless(client: {
  chat(requests: AsyncIterable<{ n: number }>): AsyncIterable<unknown>;
}): Promise<void> {
  for await (const _ of client.chat(silence()));
}

async function* silence(): AsyncGenerator<{ n: number }> {
  yield { n: 1 };
  await new Promise((resolve) => setTimeout(resolve, 8000).unref());
}

async function passes(at: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, at - Date.now() + 20));
}
