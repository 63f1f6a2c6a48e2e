import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import {
  type AuthorityService,
  type AuthorityServiceOptions,
  createAuthority,
  createAuthorityService,
  PkiError,
} from '@sallyport/pki';
import {
  allow,
  createService,
  defineContract,
  registry,
  type SallyportEvent,
  type Service,
  secret,
  server,
  serverStream,
  silentLogger,
  type TlsSource,
  tls,
  unary,
} from 'sallyport';
import { z } from 'zod';
import { authorityHouse, DOMAIN, type House, listOf } from '../support/authority-house.js';
import { eventually } from '../support/eventually.js';
import { freePort } from '../support/free-port.js';
import { Load } from './load.js';

const Echo = defineContract('test.echo.v1.Echo', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  count: serverStream(z.object({ to: z.int() }), z.object({ n: z.int() })),
});

/** Two patrols of the connections, which end before the certificates that they were opened with, fit into what a renewal leaves. */
const LEAF_TTL_MS = 10_000;

/** An authority, and two services that have their identities from it: web calls stock. */
class World implements AsyncDisposable {
  readonly house: House;
  readonly events: SallyportEvent[] = [];
  authority: AuthorityService;
  readonly #options: Partial<AuthorityServiceOptions>;
  readonly #registry = registry.memory();
  readonly #services = new Map<string, Service>();

  private constructor(house: House, options: Partial<AuthorityServiceOptions>) {
    this.house = house;
    this.#options = options;
    this.authority = createAuthorityService(house.options(options));
  }

  static async start({ leafTtlMs = 3_600_000 } = {}): Promise<World> {
    const [enrolment, address] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const world = new World(await authorityHouse(), { listen: { enrolment, address }, leafTtlMs });
    await world.authority.start();
    await world.startService('stock');
    await world.startService('web');
    return world;
  }

  /** Where it was before, with the store that it had. */
  async restartAuthority(): Promise<void> {
    this.authority = createAuthorityService(this.house.options(this.#options));
    await this.authority.start();
  }

  source(joinToken: string): TlsSource {
    return tls.fromAuthority({
      address: `https://${this.#options.listen?.enrolment}`,
      bundle: this.house.root.bundlePem,
      joinToken: secret.from({ get: async () => joinToken }, 'join token'),
      startTimeoutMs: 2000,
    });
  }

  get web(): Service {
    const web = this.#services.get('web');
    assert.ok(web);
    return web;
  }

  async startService(name: string): Promise<void> {
    const { joinToken } = await this.authority.createJoinToken({ service: name });
    const service = createService({
      name,
      version: '1.0.0',
      tls: this.source(joinToken),
      registry: this.#registry,
      server: server({ address: '127.0.0.1:0' }),
      authorize: [allow({ from: `spiffe://${DOMAIN}/svc/*`, to: 'test.echo.v1.Echo/*' })],
      logger: silentLogger,
    });
    service.handle(Echo, {
      say: ({ text }) => ({ text }),
      async *count({ to }) {
        for (let n = 1; n <= to; n++) {
          yield { n };
          await pause(5);
        }
      },
    });
    service.on('*', (event) => this.events.push(event));
    await service.start();
    this.#services.set(name, service);
  }

  rotations(name: string): number {
    return this.events.filter(({ type, service }) => type === 'rotated' && service === name).length;
  }

  get failedRenewals(): number {
    return this.events.filter(({ type }) => type === 'rotation-failed').length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const service of this.#services.values()) await service.stop();
    await this.authority.stop();
    this.house[Symbol.dispose]();
  }
}

function startLoad({ web }: World): Load {
  const load = new Load();
  const echo = web.client(Echo, { service: 'stock' });
  load.repeat('unary', async () => assert.deepEqual(await echo.say({ text: 'hello' }), { text: 'hello' }));
  load.repeat('stream', async () => {
    let last = 0;
    for await (const { n } of echo.count({ to: 20 })) last = n;
    assert.equal(last, 20);
  });
  return load;
}

/** Of the certificates that followed the first one. */
function serialsOf({ events }: World, name: string): Set<string> {
  return new Set(events.flatMap((event) => (event.type === 'rotated' && event.service === name ? [event.serial] : [])));
}

describe('services whose identities come from the authority', () => {
  it('loses no call while certificates are renewed and the authority is stopped and started again', async function () {
    this.timeout(60_000);
    await using world = await World.start({ leafTtlMs: LEAF_TTL_MS });
    const load = startLoad(world);

    await eventually(() => assert.ok(world.rotations('stock') >= 1 && world.rotations('web') >= 1));
    for (let outage = 0; outage < 2; outage++) {
      await world.authority.stop();
      const before = world.failedRenewals;
      await eventually(() => assert.ok(world.failedRenewals > before));
      await world.restartAuthority();
      const { size } = serialsOf(world, 'stock');
      await eventually(() => assert.ok(serialsOf(world, 'stock').size > size));
    }
    await load.stop();

    const { unary: calls = 0, stream: streams = 0 } = load.done;
    console.log(
      `        ${calls} calls and ${streams} streams over ${serialsOf(world, 'stock').size} certificates of stock, ` +
        `${serialsOf(world, 'web').size} of web and 2 outages: ${load.failures.length} failed`,
    );
    assert.deepEqual(load.failures, []);
    assert.ok(calls > 100 && streams > 10);
  });

  it('lets nobody call with a certificate that was revoked a second ago', async () => {
    await using world = await World.start();
    const echo = world.web.client(Echo, { service: 'stock' });
    await echo.say({ text: 'hello' });
    const endless = (async () => {
      for await (const _ of echo.count({ to: 1_000_000 }));
    })();
    endless.catch(() => {});

    const began = Date.now();
    await world.authority.revoke({ identity: `spiffe://${DOMAIN}/svc/web` });
    await assert.rejects(endless);
    const tookMs = Date.now() - began;

    assert.ok(tookMs < 1000, `it took ${tookMs} ms`);
    await assert.rejects(echo.say({ text: 'hello' }, { deadlineMs: 1000 }));
    const closed = world.events.filter(({ type }) => type === 'connection-closed-by-policy');
    assert.ok(closed.some((event) => event.type === 'connection-closed-by-policy' && event.reason === 'revoked'));
  });

  it('changes to another issuer and another root with no failed call', async function () {
    this.timeout(60_000);
    await using world = await World.start({ leafTtlMs: LEAF_TTL_MS });
    const { house } = world;
    const next = createAuthority({ trustDomain: DOMAIN });
    const load = startLoad(world);

    const roots = house.folder.write('both-roots.pem', house.root.bundlePem + next.bundlePem);
    const rootLists = [...house.material.rootLists, house.folder.write('next.crl', listOf(next))];
    await world.authority.replaceAuthority({ ...house.material, roots, rootLists });
    await eventually(() => assert.ok(world.rotations('stock') >= 1 && world.rotations('web') >= 1));
    const issuer = await house.issuer('next', next);
    await world.authority.replaceAuthority({ issuer, retiring: [house.material.issuer], roots, rootLists });
    const before = serialsOf(world, 'stock').size;
    await eventually(() => assert.ok(serialsOf(world, 'stock').size >= before + 2));
    await load.stop();

    console.log(`        ${load.done.unary} calls over a change of issuer and root: ${load.failures.length} failed`);
    assert.deepEqual(load.failures, []);
  });

  it('refuses to start with a token that was used', async () => {
    await using world = await World.start();
    const { joinToken } = await world.authority.createJoinToken({ service: 'late' });
    const context = { clock: { now: Date.now, after: () => ({ cancel() {} }) }, events: { emit() {} } };
    (await world.source(joinToken).open(context)).close();

    await assert.rejects(world.source(joinToken).open(context), (error: unknown) => {
      assert.ok(error instanceof PkiError);
      assert.equal(error.code, 'join-token-refused');
      return true;
    });
  });

  it('refuses to start as another service than the token is for', async () => {
    await using world = await World.start();
    const { joinToken } = await world.authority.createJoinToken({ service: 'cart' });
    const impostor = createService({
      name: 'stock',
      version: '1.0.0',
      tls: world.source(joinToken),
      registry: registry.memory(),
      server: server({ address: '127.0.0.1:0' }),
      authorize: [],
      logger: silentLogger,
    });
    impostor.handle(Echo, { say: ({ text }) => ({ text }), async *count() {} });

    await assert.rejects(impostor.start(), /identity-mismatch at service\.tls/);
  });
});
