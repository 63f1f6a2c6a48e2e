import assert from 'node:assert/strict';
import { setImmediate as immediate, setTimeout as pause } from 'node:timers/promises';
import { systemClock } from '@sallyport/core/spi';
import { type Authority, createAuthority } from '@sallyport/pki';
import { fakeClock, IssuedSource, mesh } from '@sallyport/testing';
import { clientOn, serverOn } from '@sallyport/transport-mtls/spi';
import {
  allow,
  bidi,
  type CallError,
  type Client,
  createService,
  defineContract,
  exactly,
  type Handlers,
  registry,
  type Service,
  Status,
  serverStream,
  silentLogger,
  unary,
} from 'sallyport';
import { z } from 'zod';
import { eventually } from '../support/eventually.js';
import { FrameType } from '../support/h2-frames.js';
import { forEachLane, type Lane, lanesUnderTest } from '../support/lanes.js';
import { rawPeer } from '../support/raw-peer.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { Load } from './load.js';
import { type Party, partyInFiles, partyInMemory } from './party.js';

const TRUST_DOMAIN = 'rotation.test';
const MINUTE_MS = 60_000;
/** On each lane; 100 in all. */
const LEAF_ROTATIONS = 50;
const CA_CHANGES = 3;
const STREAMED = 40;

const Echo = defineContract('test.echo.v1.Echo', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  count: serverStream(z.object({ to: z.int() }), z.object({ n: z.int() })),
  chat: bidi(z.object({ n: z.int() }), z.object({ n: z.int() })),
});

type EchoClient = Client<typeof Echo>;

const echo: Handlers<typeof Echo> = {
  say: ({ text }) => ({ text }),
  async *count({ to }) {
    for (let n = 1; n <= to; n++) {
      yield { n };
      await pause(5);
    }
  },
  async *chat(requests) {
    for await (const { n } of requests) yield { n: -n };
  },
};

forEachLane((lane) => {
  describe('rotation', () => {
    it('waits for the new identity when it overtakes a call that is connecting', async () => {
      await using world = mesh(lanesUnderTest());
      const stock = world.service('stock', {
        authorize: [allow({ from: world.id('web'), to: 'test.echo.v1.Echo/*' })],
      });
      stock.handle(Echo, echo);
      await world.start();
      for (let turns = 0; turns < 30; turns++) {
        const web = await world.callerAs('web');

        const call = web.client(Echo, { service: 'stock' }).say({ text: 'hello' });
        for (let turn = 0; turn < turns; turn++) await immediate();
        world.rotate(web);

        assert.deepEqual(await call, { text: 'hello' }, `rotated after ${turns} turns of the event loop`);
        await web.stop();
      }
    });

    it('lets a call begin on the connection that it was handed just before', async () => {
      await using world = mesh(lanesUnderTest());
      const stock = world.service('stock', {
        authorize: [allow({ from: world.id('web'), to: 'test.echo.v1.Echo/*' })],
      });
      stock.handle(Echo, echo);
      await world.start();
      const issued = () => ({
        identity: world.authority.issue({ id: world.id('web') }),
        bundlePem: world.authority.bundlePem,
      });
      const source = new IssuedSource(issued());
      const context = { clock: systemClock, events: { emit: () => {} } };
      const pool = clientOn([lane.name], {}).open({ service: 'web', tls: await source.open(context), ...context });
      const deadlineAt = Date.now() + 5000;
      const [endpoint] = stock.endpoints;
      assert.ok(endpoint);

      const connection = await pool.connect(
        { key: 'stock', instance: stock.instanceId, service: 'stock', endpoint, expect: exactly(world.id('stock')) },
        deadlineAt,
      );
      source.rotate(issued());
      const outgoing = { path: '/test.echo.v1.Echo/say', metadata: undefined, deadlineAt };
      const { message } = await connection.unary(outgoing, Buffer.from('{"text":"hello"}')).result;

      assert.equal(String(message), '{"text":"hello"}');
      await pool.close();
    });

    it('asks a connection to come again with a current identity once it is old', async () => {
      const clock = fakeClock();
      await using world = mesh({ ...lanesUnderTest(), clock });
      const stock = world.service('stock', { server: { limits: { maxConnectionAgeMs: 10 * MINUTE_MS } } });
      await world.start();
      using peer = await rawPeer(world, stock);
      // Its age counts from when the server has let it in, a moment after the client believes so.
      await eventually(() => assert.ok(peer.frames().length > 0));

      await clock.advance(8.9 * MINUTE_MS);
      const youngIsOpen = !peer.isClosed;
      await clock.advance(1.1 * MINUTE_MS);
      await peer.closed;

      assert.ok(youngIsOpen);
      assert.ok(peer.frames().some(({ type }) => type === FrameType.GOAWAY));
    });

    it(`loses no call in ${LEAF_ROTATIONS} rotations of every leaf and ${CA_CHANGES} complete CA changes`, async function () {
      this.timeout(60_000);
      using folder = temporaryFolder();
      const world = await startWorld(lane, folder.path);
      const load = startLoad(world);
      const startedAt = Date.now();

      await rotateEverything(world);
      await load.stop();
      const lastAnswer = await world.web.client(Echo, { service: 'stock' }).say({ text: 'still there' });
      const outdated = await refusalOf(world, world.firstAuthority);
      await world.stop();

      console.log(figures(world, load, Date.now() - startedAt));
      assert.deepEqual(load.failures, []);
      assert.equal(lastAnswer.text, 'still there');
      assert.ok(world.certificatesSeen.size > LEAF_ROTATIONS, 'the servers met the new certificates of their callers');
      assert.equal(outdated.code, Status.UNAVAILABLE, 'nobody trusts the first CA any more');
      for (const [kind, calls] of Object.entries(load.done)) assert.ok(calls > 0, `${kind} was under load`);
    });
  });
});

/** web calls orders and stock, orders calls stock: all three rotate, one of them in files. */
interface World {
  readonly orders: Service;
  readonly web: Service;
  readonly parties: readonly Party[];
  readonly firstAuthority: Authority;
  authority: Authority;
  leafRotations: number;
  caChanges: number;
  /** Fingerprints of the callers' certificates. */
  readonly certificatesSeen: Set<string>;
  handshakesRefused: number;
  /** A service that only calls, as `web` or on material of its own. */
  caller(party?: Party): Service;
  stop(): Promise<void>;
}

async function startWorld(lane: Lane, folder: string): Promise<World> {
  const authority = createAuthority({ trustDomain: TRUST_DOMAIN });
  const shared = registry.memory();
  const certificatesSeen = new Set<string>();
  const ordersParty = partyInFiles(idOf('orders'), authority, folder);
  const stockParty = partyInMemory(idOf('stock'), authority);
  const webParty = partyInMemory(idOf('web'), authority);
  const common = {
    version: '1.0.0',
    registry: shared,
    client: clientOn([lane.name], {}),
    logger: silentLogger,
    drain: { spreadMs: 0, graceMs: 1000 },
  };

  const serving = (name: string, party: Party) =>
    createService({
      ...common,
      name,
      tls: party.source,
      server: serverOn([lane.name], { limits: { maxConnections: 2000, maxConnectionsPerPeer: 1000 } }),
      authorize: [allow({ from: [idOf('web'), idOf('orders')], to: 'test.echo.v1.Echo/*' })],
    }).handle(Echo, {
      ...echo,
      say({ text }, call) {
        certificatesSeen.add(call.peer.fingerprint);
        return { text };
      },
    });

  const orders = serving('orders', ordersParty);
  const stock = serving('stock', stockParty);
  ordersParty.service = orders;
  const caller = (party: Party = webParty) => createService({ ...common, name: 'caller', tls: party.source });
  const web = caller();
  const world: World = {
    orders,
    web,
    parties: [ordersParty, stockParty, webParty],
    firstAuthority: authority,
    authority,
    leafRotations: 0,
    caChanges: 0,
    certificatesSeen,
    handshakesRefused: 0,
    caller,
    async stop() {
      await Promise.all([web, orders, stock].map((service) => service.stop()));
    },
  };
  for (const service of [orders, stock]) {
    service.on('handshake-refused', () => {
      world.handshakesRefused++;
    });
  }
  await Promise.all([orders, stock, web].map((service) => service.start()));
  return world;
}

function startLoad(world: World): Load {
  const load = new Load();
  const ofFiles = world.web.client(Echo, { service: 'orders' });
  const ofMemory = world.web.client(Echo, { service: 'stock' });
  const fromFiles = world.orders.client(Echo, { service: 'stock' });
  for (const client of [ofFiles, ofMemory, fromFiles]) {
    load.repeat('unary', () => say(client));
    load.repeat('unary', () => say(client));
    load.repeat('server stream', () => count(client));
    load.repeat('bidi', () => chat(client, STREAMED));
    // From before the first rotation until after the last one, on its first connection.
    load.repeat('bidi over everything', () => chat(client, Number.POSITIVE_INFINITY, () => load.stopping));
  }
  for (const service of ['orders', 'stock']) {
    load.repeat('fresh connection', async () => {
      const caller = world.caller();
      await caller.start();
      try {
        await say(caller.client(Echo, { service }));
      } finally {
        await caller.stop();
      }
    });
  }
  return load;
}

async function rotateEverything(world: World): Promise<void> {
  for (let round = 1; round <= LEAF_ROTATIONS; round++) {
    await Promise.all(world.parties.map((party) => party.renew(world.authority)));
    world.leafRotations++;
    if (world.caChanges < CA_CHANGES && round * (CA_CHANGES + 1) >= LEAF_ROTATIONS * (world.caChanges + 1)) {
      await changeAuthority(world);
    }
  }
}

/** Trust both, switch the leaves, trust the new one alone: each step everywhere before the next. */
async function changeAuthority(world: World): Promise<void> {
  const { authority: old, parties } = world;
  const next = createAuthority({ trustDomain: TRUST_DOMAIN });
  for (const party of parties) await party.trust(old.bundlePem + next.bundlePem);
  for (const party of parties) await party.renew(next);
  for (const party of parties) await party.trust(next.bundlePem);
  world.authority = next;
  world.caChanges++;
}

async function say(client: EchoClient): Promise<void> {
  assert.deepEqual(await client.say({ text: 'hello' }), { text: 'hello' });
}

async function count(client: EchoClient): Promise<void> {
  let last = 0;
  for await (const { n } of client.count({ to: STREAMED })) assert.equal(n, ++last);
  assert.equal(last, STREAMED);
}

async function chat(client: EchoClient, messages: number, isOver = () => false): Promise<void> {
  let sent = 0;
  let received = 0;
  async function* requests() {
    while (sent < messages && !isOver()) {
      yield { n: ++sent };
      await pause(5);
    }
  }
  for await (const { n } of client.chat(requests(), { deadlineMs: 60_000 })) assert.equal(n, -++received);
  assert.equal(received, sent);
}

/** What a caller learns that comes with a leaf of this authority and trusts everybody. */
async function refusalOf(world: World, authority: Authority): Promise<CallError> {
  const party = partyInMemory(idOf('web'), authority);
  await party.trust(authority.bundlePem + world.authority.bundlePem);
  const caller = world.caller(party);
  await caller.start();
  try {
    return await caller
      .client(Echo, { service: 'stock' })
      .say({ text: 'hello' })
      .then(
        () => assert.fail('the server accepted it'),
        (error) => error,
      );
  } finally {
    await caller.stop();
  }
}

function idOf(service: string): string {
  return `spiffe://${TRUST_DOMAIN}/svc/${service}`;
}

function figures(world: World, load: Load, ms: number): string {
  const calls = Object.entries(load.done).map(([kind, count]) => `${count} ${kind}`);
  return [
    `      ${world.leafRotations} rotations of ${world.parties.length} leaves, ${world.caChanges} CA changes in ${ms} ms;`,
    `${load.failures.length} failed of ${calls.join(', ')};`,
    `${world.certificatesSeen.size} caller certificates seen, ${world.handshakesRefused} handshakes refused`,
  ].join(' ');
}
