import assert from 'node:assert/strict';
import { join } from 'node:path';
import { allow, InsecureConfigurationError, registry, secret } from '@sallyport/core';
import { keyMaterial } from '../../support/attacks/stronghold.js';
import { eventually } from '../../support/eventually.js';
import { ask as askFor } from '../../support/sidecar/ask.js';
import { localCaller } from '../../support/sidecar/conversation.js';
import { program } from '../../support/sidecar/program.js';
import { idOf, type Started, sidecarWorld, TUNNEL } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const admin = { listen: '127.0.0.1:0' } as const;
const pages = ['/health', '/ready', '/metrics', '/peers', '/certificates', '/config'];

async function ask({ sidecar }: Started, path: string) {
  const { adminAddress = '' } = sidecar;
  const { status, text } = await askFor('h1', adminAddress, { path, host: adminAddress });
  return { status, text };
}

async function told(door: Started, path: string) {
  const { status, text } = await ask(door, path);
  return { status, ...JSON.parse(text) };
}

async function metric(door: Started, line: string): Promise<number | undefined> {
  const { text } = await ask(door, '/metrics');
  const found = text.split('\n').find((one) => one.startsWith(line));
  return found === undefined ? undefined : Number(found.slice(found.lastIndexOf(' ') + 1));
}

describe('the admin listener of a sidecar', () => {
  it('says that the program is well, and with 503 that it is not', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const check = { intervalMs: 20 } as const;
    const door = await world.start({ admin, inbound: { target: app.address, protocol: 'tcp', check } });
    const well = { status: 200, name: 'ledger', state: 'ready', program: { target: app.address, state: 'up' } };
    assert.deepEqual(await told(door, '/health'), well);
    assert.deepEqual(await told(door, '/ready'), { status: 200, ready: true, reasons: [] });

    await app.stop();

    await eventually(async () => assert.equal((await told(door, '/health')).status, 503));
    const { status, program: seen } = await told(door, '/health');
    assert.deepEqual([status, seen.state, seen.problem], [503, 'down', 'ECONNREFUSED']);
    const { ready, reasons } = await told(door, '/ready');
    assert.deepEqual([ready, reasons], [false, ['the program cannot be reached: ECONNREFUSED']]);
  });

  it('says who is connected, how often and since when, and what is open to upstreams', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const books = await world.start({
      name: 'books',
      inbound: { target: app.address, protocol: 'tcp' },
      authorize: [allow({ from: idOf('ledger'), to: TUNNEL })],
    });
    const addresses = books.sidecar.endpoints.map(({ host, port }) => `${host}:${port}`);
    const began = Date.now();
    const door = await world.start({
      admin,
      inbound: { target: app.address, protocol: 'tcp' },
      authorize: ['web', 'shop'].map((name) => allow({ from: idOf(name), to: TUNNEL })),
      upstreams: { books: { protocol: 'tcp', listen: '127.0.0.1:0', addresses, identity: idOf('books') } },
    });
    const callers = [await world.call(door, 'shop'), await world.call(door, 'web'), await world.call(door, 'web')];
    for (const { socket } of callers) socket.write('hello');
    await eventually(() => assert.ok(callers.every((caller) => caller.text() === 'hello')));
    using local = await localCaller(door.sidecar.upstreams.books ?? '');
    local.socket.write('hello');
    await eventually(() => assert.equal(local.text(), 'hello'));

    const { inbound, outbound } = await told(door, '/peers');

    assert.deepEqual(
      inbound.map(({ peer, connections }: Record<string, unknown>) => [peer, connections]),
      [
        [idOf('web'), 2],
        [idOf('shop'), 1],
      ],
    );
    for (const { since } of inbound) assert.ok(Date.parse(since) >= began - 1 && Date.parse(since) <= Date.now());
    assert.deepEqual(outbound, [{ name: 'books', address: door.sidecar.upstreams.books, connections: 1 }]);
    for (const { socket } of callers) socket.destroy();
    await eventually(async () => assert.deepEqual((await told(door, '/peers')).inbound, []));
  });

  it('says which certificate is in use, until when, and whom it trusts; after a rotation the new one', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ admin, inbound: { target: app.address, protocol: 'tcp' } });
    const before = await told(door, '/certificates');

    door.source.rotate(world.issue('ledger'));

    const after = await told(door, '/certificates');
    assert.equal(before.identity, idOf('ledger'));
    assert.notEqual(after.serial, before.serial);
    assert.equal(after.generation, before.generation + 1);
    assert.ok(Date.parse(after.notAfter) > Date.now());
    const [authority, ...more] = after.bundles['sidecar.test'];
    assert.deepEqual(more, []);
    assert.ok(Date.parse(authority.notAfter) > Date.now());
    assert.match(authority.serial, /^[0-9A-F]+$/);
  });

  it('shows the configuration in force, defaults and changes among it', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ admin, inbound: { target: app.address, protocol: 'tcp' } });
    const ledger = { protocol: 'tcp', listen: '127.0.0.1:0', addresses: ['10.0.0.9:1'], identity: idOf('x') } as const;

    await door.sidecar.replace({ upstreams: { ledger }, authorize: [allow({ from: idOf('shop'), to: TUNNEL })] });

    const { inbound, upstreams, authorize, limits, tls, admin: own } = await told(door, '/config');
    assert.equal(inbound.target, app.address);
    assert.equal(inbound.check.intervalMs, 2000);
    assert.deepEqual(upstreams, { ledger });
    assert.deepEqual(authorize, [
      { name: 'sidecar.authorize[0]', effect: 'allow', from: [idOf('shop')], to: [TUNNEL] },
    ]);
    assert.equal(limits.maxConnections, 1000);
    assert.equal(tls, 'issued');
    assert.deepEqual(own, admin);
  });

  it('counts for Prometheus what comes, what is denied, what is open and how long the certificate lasts', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const dead = { protocol: 'tcp', listen: '127.0.0.1:0', addresses: ['127.0.0.1:1'], identity: idOf('x') } as const;
    const door = await world.start({
      admin,
      inbound: { target: app.address, protocol: 'tcp' },
      upstreams: { dead },
    });
    using web = await world.call(door);
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));
    using stranger = await world.call(door, 'stranger');
    await stranger.closed;
    using local = await localCaller(door.sidecar.upstreams.dead ?? '');
    await local.closed;

    const service = '{sallyport_service="ledger"';
    await eventually(async () => assert.equal(await metric(door, `sallyport_sidecar_peers${service}`), 1));
    assert.equal(await metric(door, `sallyport_sidecar_program_up${service}`), 1);
    assert.equal(await metric(door, `sallyport_sidecar_connections${service}`), 1);
    assert.equal(await metric(door, `sallyport_sidecar_connections_accepted_total${service}`), 2);
    assert.equal(await metric(door, `sallyport_sidecar_denied_total${service}`), 1);
    const upstream = `${service},sallyport_upstream="dead"`;
    assert.equal(await metric(door, `sallyport_sidecar_upstream_connections${upstream}`), 0);
    assert.equal(await metric(door, `sallyport_sidecar_upstream_failures_total${upstream}`), 1);
    const remaining = await metric(door, 'sallyport_tls_certificate_remaining{');
    assert.ok(remaining !== undefined && remaining > 0);
  });

  it('tells no secret on any page, not even of those that are down the line of its options', async () => {
    using folder = temporaryFolder();
    const canary = 'canary-7d1f-do-not-tell';
    await using app = await program();
    await using world = sidecarWorld();
    const place = registry.local({ directory: join(folder.path, 'registry') });
    const identity = world.issue('ledger');
    const token = secret.file(folder.write('token', canary));
    const door = await world.start({
      admin,
      registry: { ...place, token, note: canary } as typeof place,
      inbound: { target: app.address, protocol: 'tcp' },
      logger: Object.assign(() => {}, { debug() {}, info() {}, warn() {}, error() {}, token: canary }),
    });
    door.source.rotate(identity);
    using web = await world.call(door);

    const text = (await Promise.all(pages.map((path) => ask(door, path)))).map((page) => page.text).join('\n');

    assert.ok(text.includes(idOf('ledger')));
    for (const hidden of [canary, 'PRIVATE KEY', keyMaterial(identity.identity)]) assert.ok(!text.includes(hidden));
    assert.ok(!text.includes(folder.path), 'a path of the machine');
    web.socket.destroy();
  });

  it('listens on a unix socket of the own user, and not at all when it is not asked for', async () => {
    using folder = temporaryFolder();
    await using app = await program();
    await using world = sidecarWorld();
    const inbound = { target: app.address, protocol: 'tcp' } as const;
    const listen = `unix:${join(folder.path, 'admin.sock')}`;
    const door = await world.start({ admin: { listen }, inbound });
    const silent = await world.start({ inbound });

    assert.equal(door.sidecar.adminAddress, listen);
    assert.equal((await ask(door, '/health')).status, 200);
    assert.equal(silent.sidecar.adminAddress, undefined);
    await door.sidecar.stop();
    assert.equal(door.sidecar.adminAddress, undefined);
  });

  for (const listen of ['0.0.0.0:9901', '10.0.0.5:9901', ':9901']) {
    it(`is refused at ${listen}, where others could ask`, async () => {
      await using world = sidecarWorld();
      const { sidecar } = world.make({ admin: { listen }, inbound: { target: '127.0.0.1:1', protocol: 'tcp' } });

      await assert.rejects(sidecar.start(), (error: unknown) => {
        assert.ok(error instanceof InsecureConfigurationError);
        assert.deepEqual(
          error.violations.map(({ id, path }) => [id, path]),
          [['admin-exposed', 'sidecar.admin.listen']],
        );
        return true;
      });
    });
  }
});
