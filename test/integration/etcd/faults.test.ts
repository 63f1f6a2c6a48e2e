import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAuthority } from '@sallyport/pki';
import { eventually } from '../../support/eventually.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet, type FleetOptions, printRecovery } from './fleet.js';
import { EtcdWorld, TRUST_DOMAIN } from './world.js';

/** On a busy machine a handshake takes longer than the 50 ms that a connection lives: some requests need many of them. */
const patient = { leaseTtlMs: 15_000, retry: { totalMs: 60_000 } } as const;

for (const version of ['3.4', '3.5'] as const) {
  describe(`registry.etcd() on etcd ${version} under faults`, function () {
    this.timeout(60_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    let world: EtcdWorld;
    let fleet: Fleet | undefined;
    let count = 0;

    before(async () => {
      world = await EtcdWorld.start({ version });
    });
    after(() => world?.[Symbol.asyncDispose]());

    afterEach(async () => {
      fleet?.close();
      fleet = undefined;
      await world.closeSessions();
    });

    async function launch(options?: FleetOptions): Promise<Fleet> {
      count++;
      fleet = await Fleet.launch(world, `service-${count}`, options);
      return fleet;
    }

    it('keeps what it knows while etcd is dead for longer than the TTL, and is complete after its restart', async () => {
      const running = await launch();

      await world.server.kill();
      await eventually(() => assert.equal(running.view.state, 'stale'));
      await sleep(3500);
      await world.server.restart();

      printRecovery('SIGKILL and restart', await running.complete());
      assert.equal(running.fewestKnown, 3);
    });

    it('registers everything again after etcd has lost its data, and shows nobody missing meanwhile', async () => {
      const running = await launch();

      await world.server.wipe();

      printRecovery('data wiped', await running.complete());
      assert.equal(running.fewestKnown, 3);
    });

    it('has as much patience with a second loss of data as with the first', async () => {
      const running = await launch({ reader: { options: { emptyGraceMs: 4000 } } });
      await world.server.wipe();
      const lostAt = performance.now();
      await running.complete();
      await sleep(Math.max(0, lostAt + 2500 - performance.now()));
      for (const { clock } of running.owners) clock.kill();
      const lostAgainAt = performance.now();
      await world.server.wipe();

      // The grace of the first loss is over by then, even if it was noticed a while later.
      await sleep(Math.max(0, lostAt + 5800 - performance.now()));
      assert.equal(running.known, 3);
      await eventually(() => assert.equal(running.known, 0));
      assert.ok(performance.now() - lostAgainAt > 3900);
    });

    it('lets nobody go while etcd is away, and those who are still gone when it is back', async () => {
      const running = await launch({ reader: { options: { emptyGraceMs: 2000 } } });
      for (const { clock } of running.owners) clock.kill();
      await world.server.wipe();
      await sleep(700); // the reader notices
      await world.server.kill();

      await sleep(3500);
      assert.equal(running.known, 3);
      assert.equal(running.view.state, 'stale');
      await world.server.restart();
      await eventually(() => assert.equal(running.known, 0));
      assert.equal(running.view.state, 'fresh');
    });

    it('leaves no watch behind when a reader goes as soon as it knows', async () => {
      const { session } = await world.open('hasty');
      const before = await world.server.watches();

      for (let i = 0; i < 10; i++) for await (const { type } of session.watch('hasty')) if (type === 'snapshot') break;

      await sleep(300);
      assert.equal(await world.server.watches(), before);
    });

    it('notices that no bytes move, and catches up when they do again', async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      const running = await launch({
        reader: {
          endpoints: [proxy.address],
          options: { timeouts: { requestMs: 1000, keepaliveIntervalMs: 5000, keepaliveTimeoutMs: 1000 } },
        },
      });

      proxy.stall();
      await running.change(0, { zone: 'b' });
      await running.leave(2);
      await eventually(() => assert.equal(running.view.state, 'stale'), 15_000);
      assert.equal(running.known, 3);
      proxy.resume();

      printRecovery('stall', await running.complete());
    });

    it('keeps an instance alive through a stall that is shorter than the TTL, and brings it back after a longer one', async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      const running = await launch({ owners: 1, owner: { endpoints: [proxy.address] } });

      proxy.stall();
      await eventually(() => assert.equal(running.known, 0), 3000 + 5000);
      proxy.resume();

      printRecovery('lease passed in a stall', await running.complete());
      assert.equal(running.owners[0]?.session.state, 'fresh');
    });

    it('loses no change while every connection is reset every 50 ms', async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      const endpoints = [proxy.address];
      const owner = { endpoints, options: patient };
      const running = await launch({ owners: 10, oneProcess: true, owner, reader: { endpoints } });

      proxy.resetEvery(50);
      for (let n = 1; n <= 100; n++) {
        await Promise.all(running.owners.map((_, i) => running.change(i, { metadata: { n: String(n) } })));
      }
      proxy.resetEvery(undefined);

      printRecovery('resets every 50 ms under 1,000 changes', await running.complete());
      assert.equal(running.fewestKnown, 10);
    });

    it('is complete when the history it missed has been compacted', async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      const running = await launch({ reader: { endpoints: [proxy.address] } });

      proxy.stall();
      proxy.reset(); // new connections are accepted and then left alone
      await eventually(() => assert.equal(running.view.state, 'stale'));
      for (let n = 0; n < 20; n++) await running.change(0, { metadata: { n: String(n) } });
      await running.leave(1);
      await world.server.compact();
      proxy.resume();

      printRecovery('compaction while disconnected', await running.complete());
    });

    it('registers again what somebody else has deleted, or whose lease was revoked', async () => {
      const running = await launch({ owners: 2 });
      const keys = await world.server.keys(`/sallyport/v1/services/${running.service}/`);

      await world.server.remove(keys[0]?.key ?? '');
      await world.server.revokeLease(keys[1]?.lease ?? '');
      await eventually(() => assert.equal(running.known, 0));

      printRecovery('key deleted, lease revoked', await running.complete());
    });

    it('takes a rotated certificate over without a gap', async () => {
      const running = await launch();
      const { version: before } = running.view;
      const states = running.reader.events.of('registry-state').length;

      for (const { source } of [...running.owners, running.reader]) {
        const user = source === running.reader.source ? `${running.service}-reader` : running.service;
        source.rotate({ identity: world.identityOf(user), bundlePem: world.authority.bundlePem });
      }
      const from = performance.now();
      await running.change(0, { zone: 'after' });
      await running.complete();

      printRecovery('certificates rotated', performance.now() - from);
      await sleep(3500);
      assert.equal(running.view.version, before + 1, 'no instance was ever away');
      assert.equal(running.reader.events.of('registry-state').length, states, 'contact was never lost');
    });

    it('follows a change of the CA, and stays away from a server of the old one', async () => {
      const running = await launch({ owners: 1 });
      const next = createAuthority({ trustDomain: TRUST_DOMAIN });

      running.reader.source.rotate({
        identity: world.identityOf(`${running.service}-reader`, next),
        bundlePem: next.bundlePem,
      });
      await eventually(() => assert.equal(running.view.state, 'stale'));
      assert.equal(running.known, 1);
      const [refusal] = running.reader.events.of('server-identity-refused');
      assert.equal(refusal?.reason, 'untrusted-issuer');
      running.reader.source.rotate({
        identity: world.identityOf(`${running.service}-reader`),
        bundlePem: next.bundlePem + world.authority.bundlePem,
      });

      printRecovery('CA changed', await running.complete());
    });

    it('keeps what it knows when its permission to read is removed, says so, and goes on when it is given back', async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      const running = await launch({ reader: { endpoints: [proxy.address] } });
      const reader = `${running.service}-reader`;

      await world.allow(reader, []);
      proxy.reset(); // an open watch is not asked again
      await eventually(() => assert.equal(running.view.state, 'stale'));
      await sleep(500);
      assert.equal(running.known, 3);
      await assert.rejects(running.reader.session.list(running.service), { status: 'PERMISSION_DENIED' });
      assert.match(running.reader.events.of('registry-state').at(-1)?.detail ?? '', /denied/);
      await world.allow(reader, [running.service]);

      printRecovery('permission to read removed', await running.complete());
    });

    it('says so when its permission to write is removed, and registers again when it is given back', async () => {
      const running = await launch({ owners: 1 });
      const keys = await world.server.keys(`/sallyport/v1/services/${running.service}/`);
      const role = `sallyport-${running.service}`;
      const permissions = [{ access: 'readwrite', prefix: `/sallyport/v1/services/${running.service}/` }] as const;

      await world.server.auth.role(role, []);
      await world.server.remove(keys[0]?.key ?? '');
      await eventually(() => assert.equal(running.owners[0]?.session.state, 'stale'));
      await world.server.auth.role(role, permissions);

      printRecovery('permission to write removed', await running.complete());
      assert.deepEqual(
        running.owners[0]?.events.of('registry-state').map(({ state }) => state),
        ['stale', 'fresh'],
      );
    });
  });

  describe(`registry.etcd() on three nodes of etcd ${version}`, function () {
    this.timeout(60_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);

    it('is complete after the leader was lost, again and again', async () => {
      await using world = await EtcdWorld.start({ version, nodes: 3 });
      const running = await Fleet.launch(world, 'greeter');

      for (let round = 0; round < 3; round++) {
        const from = performance.now();
        const dead = await world.server.killLeader();
        await running.change(round, { metadata: { round: String(round) } });
        await running.complete();
        printRecovery('leader lost', performance.now() - from);
        await world.server.restart(dead);
      }

      assert.equal(running.fewestKnown, 3);
      running.close();
    });
  });
}
