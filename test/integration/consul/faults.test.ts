import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAuthority } from '@sallyport/pki';
import { consulPolicy } from '@sallyport/registry-consul';
import type { IssuedSource } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet, printRecovery, quick } from './fleet.js';
import { ConsulWorld, RotatingToken } from './world.js';

/** On a busy machine a handshake takes longer than the 50 ms that a connection lives: some requests need many of them. */
const patient = {
  healthCheck: { ttlMs: 15_000, heartbeatMs: 500 },
  timeouts: { ...quick.timeouts, operationMs: 60_000 },
} as const;

describe('registry.consul() under faults', function () {
  this.timeout(120_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;
  let fleet: Fleet | undefined;
  let count = 0;

  before(async () => {
    world = await ConsulWorld.start();
  });
  after(() => world?.[Symbol.asyncDispose]());

  afterEach(async () => {
    fleet?.view.close();
    fleet?.assertDiscreet();
    fleet = undefined;
    await world.closeSessions();
  });

  async function launch(options?: Parameters<typeof Fleet.launch>[2]): Promise<Fleet> {
    count++;
    fleet = await Fleet.launch(world, `service-${count}`, options);
    return fleet;
  }

  it('keeps what it knows while Consul is dead for longer than the TTL, and is complete after its restart', async () => {
    const { view, complete } = bound(await launch());

    await world.server.kill();
    await eventually(() => assert.equal(view.state, 'stale'));
    await sleep(4000);
    assert.equal(view.instances().length, 3);
    await world.server.restart();

    printRecovery('SIGKILL and restart', await complete());
    assert.equal(view.instances().length, 3);
  });

  it('registers everything again after Consul has lost its data, and never shows an empty service meanwhile', async () => {
    const { view, complete } = bound(await launch());
    let fewest = 3;
    view.onChange(() => {
      fewest = Math.min(fewest, view.instances().length);
    });

    await world.server.wipe();

    printRecovery('data wiped', await complete());
    assert.ok(fewest > 0, 'the view was empty');
  });

  it('notices that no bytes move, and catches up when they do again', async () => {
    await using proxy = await FaultProxy.start(world.server.address);
    const running = await launch({ reader: { address: proxy.address } });

    proxy.stall();
    await running.change(0, { zone: 'b' });
    await running.leave(2);
    await eventually(() => assert.equal(running.view.state, 'stale'));
    assert.equal(running.known, 3);
    proxy.resume();

    printRecovery('stall', await running.complete());
  });

  it('loses no change while every connection is reset every 50 ms', async () => {
    await using proxy = await FaultProxy.start(world.server.address);
    const address = proxy.address;
    const running = await launch({ owners: 4, owner: { address, options: patient }, reader: { address } });

    proxy.resetEvery(50);
    const changing = running.owners.map(async (_, i) => {
      for (let n = 1; n <= 250; n++) await running.change(i, { metadata: { n: String(n) } });
    });
    await Promise.all(changing);
    proxy.resetEvery(undefined);

    printRecovery('resets every 50 ms under 1,000 changes', await running.complete());
  });

  it('rotates a token without a gap and without a ghost', async () => {
    const running = await launch({ owners: 1 });
    const [owner] = running.owners;
    assert.ok(owner);
    const versionBefore = running.view.version;
    const old = await world.tokenFor(running.service);
    owner.token.value = old.secretId;
    await eventually(() => assert.equal(owner.events.of('registry-credential-rotated').length, 1));

    const { secretId } = await world.tokenFor(running.service);
    owner.token.value = secretId;
    const from = performance.now();
    await eventually(() => assert.equal(owner.events.of('registry-credential-rotated').length, 2));
    await world.server.acl.revoke(old);

    printRecovery('token rotated', performance.now() - from);
    await sleep(4000);
    assert.equal(running.view.version, versionBefore, 'the instance was never away');
    await running.leave(0);
    await running.complete();
    assert.deepEqual(await world.server.api('GET', `/v1/health/service/${running.service}`), []);
  });

  it('leaves no ghost when the token has rotated a moment before the instance leaves', async () => {
    const running = await launch({ owners: 1, owner: { options: { tokenRefreshMs: 60_000 } } });
    const [owner] = running.owners;
    assert.ok(owner);

    owner.token.value = (await world.tokenFor(running.service)).secretId;
    await running.leave(0);

    await running.complete();
    await sleep(1500);
    assert.deepEqual(await world.server.api('GET', `/v1/health/service/${running.service}`), []);
  });

  it('says so when its token is revoked, and takes the next one up without a gap and without a ghost', async () => {
    const service = `service-revoked`;
    const revoked = await world.tokenFor(service);
    const token = new RotatingToken(revoked);
    const running = await launchAs(service, { owners: 1, owner: { token } });
    const [owner] = running.owners;
    assert.ok(owner);

    await world.server.acl.revoke(revoked);
    await eventually(() => assert.equal(owner.session.state, 'stale'));
    const said = owner.events.of('registry-state').at(-1);
    assert.match(said?.detail ?? '', /does not know the token/);
    await sleep(4000);
    assert.equal(running.known, 1, 'it serves, and nobody says otherwise');
    const versionBefore = running.view.version;
    token.value = (await world.tokenFor(service)).secretId;
    const from = performance.now();
    await eventually(() => assert.equal(owner.session.state, 'fresh'));

    printRecovery('token revoked and replaced', performance.now() - from);
    await sleep(1000);
    assert.equal(running.view.version, versionBefore, 'the instance was never away');
    await running.leave(0);
    await running.complete();
    assert.deepEqual(await world.server.api('GET', `/v1/health/service/${service}`), []);
  });

  // A minute is the shortest life that Consul gives a token.
  it('says so when its token expires, and takes the next one up without a gap and without a ghost', async () => {
    const service = 'service-expired';
    await world.server.acl.policy(service, consulPolicy(service));
    const short = await world.server.acl.token({ policies: [service], expirationTtl: '60s' });
    const token = new RotatingToken(short);
    const running = await launchAs(service, { owners: 1, owner: { token } });
    const [owner] = running.owners;
    assert.ok(owner);
    const versionBefore = running.view.version;

    await eventually(() => assert.equal(owner.session.state, 'stale'), 75_000);
    assert.match(owner.events.of('registry-state').at(-1)?.detail ?? '', /does not know the token/);
    await sleep(4000);
    assert.equal(running.known, 1, 'it serves, and nobody says otherwise');
    token.value = (await world.tokenFor(service)).secretId;
    const from = performance.now();
    await eventually(() => assert.equal(owner.session.state, 'fresh'));

    printRecovery('token expired and replaced', performance.now() - from);
    await sleep(1000);
    assert.equal(running.view.version, versionBefore, 'the instance was never away');
    await running.leave(0);
    await running.complete();
    assert.deepEqual(await world.server.api('GET', `/v1/health/service/${service}`), []);
  });

  it('takes no token over that Consul does not know', async () => {
    const running = await launch({ owners: 1 });
    const [owner] = running.owners;
    assert.ok(owner);
    const good = owner.token.value;

    owner.token.value = '00000000-dead-dead-dead-000000000000';
    await eventually(() => assert.match(last(owner.events.of('registry-state'))?.detail ?? '', /not taken over/));
    await running.change(0, { zone: 'c' });

    await running.complete();
    owner.token.value = good;
  });

  it('keeps what it knows when the permission to read is taken away, and goes on when it is given back', async () => {
    const running = await launch();
    const reader = `${running.service}-reader`;

    await world.server.acl.policy(reader, consulPolicy(reader));
    await running.change(0, { zone: 'b' });
    await eventually(() => assert.equal(running.view.state, 'stale'), 10_000);
    await sleep(500);
    assert.equal(running.known, 3);
    await assert.rejects(running.reader.session.list(running.service), { status: 'PERMISSION_DENIED' });
    await world.server.acl.policy(reader, consulPolicy(reader, { reads: [running.service] }));

    printRecovery('permission removed and given back', await running.complete());
  });

  it('says which permission is missing when it may not register any more, and comes back when it may', async () => {
    const running = await launch({ owners: 1 });
    const [owner] = running.owners;
    assert.ok(owner);

    await world.server.acl.policy(running.service, 'node_prefix "" { policy = "read" }');
    await eventually(
      () => assert.match(last(owner.events.of('registry-state'))?.detail ?? '', /is not allowed/),
      10_000,
    );
    await world.server.acl.policy(running.service, consulPolicy(running.service));

    printRecovery('permission to register removed and given back', await running.complete());
  });

  it('rotates certificates without a gap', async () => {
    const running = await launch();
    const versionBefore = running.view.version;

    for (const { tls } of [...running.owners, running.reader]) {
      (tls as IssuedSource).rotate(issued(world, running.service));
    }
    await sleep(1500);
    assert.equal(running.view.version, versionBefore);
    assert.equal(running.view.state, 'fresh');
    await running.change(1, { zone: 'rotated' });

    printRecovery('certificates rotated', await running.complete());
  });

  it('keeps what it knows while its CA is not that of Consul, and goes on as soon as it is', async () => {
    const running = await launch();
    const source = running.reader.tls as IssuedSource;
    const foreign = createAuthority({ trustDomain: 'test.example' });

    source.rotate({
      identity: foreign.issue({ id: `spiffe://test.example/svc/${running.service}-reader` }),
      bundlePem: foreign.bundlePem,
    });
    await eventually(() => assert.equal(running.view.state, 'stale'), 10_000);
    await running.change(0, { zone: 'b' });
    assert.equal(running.known, 3);
    source.rotate(issued(world, `${running.service}-reader`));

    printRecovery('CA changed', await running.complete());
  });

  async function launchAs(service: string, options: Parameters<typeof Fleet.launch>[2]): Promise<Fleet> {
    fleet = await Fleet.launch(world, service, options);
    return fleet;
  }
});

describe('registry.consul() on three servers', function () {
  this.timeout(90_000);
  requireServers('consul-1.8.7');

  it('is complete again after the leader was lost', async () => {
    await using world = await ConsulWorld.start({ servers: 3 });
    const leader = await world.server.leader();
    const address = world.server.addresses.find((_, index) => index !== leader);
    assert.ok(address);
    const running = await Fleet.launch(world, 'greeter', { owner: { address }, reader: { address } });

    await world.server.killLeader();
    const from = performance.now();
    await running.change(0, { zone: 'b' });
    await running.complete(30_000);

    printRecovery('leader lost', performance.now() - from);
    running.view.close();
    running.assertDiscreet();
  });
});

function issued(world: ConsulWorld, service: string) {
  return {
    identity: world.authority.issue({ id: `spiffe://test.example/svc/${service}` }),
    bundlePem: world.authority.bundlePem,
  };
}

function bound(fleet: Fleet) {
  return { view: fleet.view, complete: () => fleet.complete() };
}

function last<T>(items: readonly T[]): T | undefined {
  return items.at(-1);
}
