import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { CallError } from '@sallyport/core';
import { eventually } from '../../support/eventually.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { Fleet, printRecovery } from './fleet.js';
import { EtcdWorld, RotatingPassword } from './world.js';

for (const version of ['3.4', '3.5'] as const) {
  describe(`registry.etcd() with passwords on etcd ${version}`, function () {
    this.timeout(60_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    let world: EtcdWorld;
    let fleet: Fleet | undefined;

    before(async () => {
      world = await EtcdWorld.start({ version, auth: 'password', authTokenTtlS: 1 });
    });
    after(() => world?.[Symbol.asyncDispose]());

    afterEach(async () => {
      fleet?.close();
      fleet?.assertDiscreet();
      fleet = undefined;
      await world.closeSessions();
    });

    it('logs in again when its login has expired, without a gap', async () => {
      await using proxy = await FaultProxy.start(world.server.address);
      fleet = await Fleet.launch(world, 'expired', { owners: 1, reader: { endpoints: [proxy.address] } });

      await sleep(4000);
      await fleet.change(0, { zone: 'b' });
      proxy.reset();
      await fleet.change(0, { zone: 'c' });

      printRecovery('login expired', await fleet.complete());
      assert.equal(fleet.fewestKnown, 1);
      assert.deepEqual(fleet.owners[0]?.events.of('registry-state'), []);
    });

    it('logs in again when the server has forgotten all logins', async () => {
      fleet = await Fleet.launch(world, 'restarted', { owners: 2 });

      await world.server.restart();

      printRecovery('server restarted', await fleet.complete());
      assert.equal(fleet.fewestKnown, 2);
    });

    it('takes a new password over without a gap', async () => {
      fleet = await Fleet.launch(world, 'rotated', { owners: 1 });
      const { password } = fleet.owners[0] ?? {};
      assert.ok(password);
      const next = new RotatingPassword().value;

      password.value = next; // the store first, then etcd: the old login serves until etcd forgets it
      await world.allow('rotated', [], password);
      await fleet.change(0, { zone: 'after' });

      printRecovery('password rotated', await fleet.complete());
      await sleep(3500);
      assert.equal(fleet.fewestKnown, 1);
    });

    it('says so while its password is wrong, and comes back with the right one', async () => {
      fleet = await Fleet.launch(world, 'changed', { owners: 1 });
      const [owner] = fleet.owners;
      assert.ok(owner?.password);
      const next = new RotatingPassword();

      await world.allow('changed', [], next); // etcd first: the store still holds the old one
      await eventually(() => assert.equal(owner.session.state, 'stale'), 10_000);
      const error = await owner.session.list('changed').then(undefined, (reason: unknown) => reason);
      assert.ok(error instanceof CallError && error.status === 'UNAUTHENTICATED', inspect(error));
      owner.password.value = next.value;

      printRecovery('password changed behind its back', await fleet.complete());
      await eventually(() => assert.equal(owner.session.state, 'fresh'));
    });

    it('does not start with a wrong password, and does not say it (T40)', async () => {
      await world.allow('wrong', [], new RotatingPassword());
      const wrong = new RotatingPassword();

      const error = await world.openAs('wrong', {}, wrong).then(undefined, (reason: unknown) => reason);

      assert.ok(error instanceof CallError);
      assert.equal(error.status, 'UNAUTHENTICATED');
      for (const said of [error.message, error.stack ?? '', inspect(error, { depth: 9 }), JSON.stringify(error)]) {
        assert.ok(!said.includes(wrong.value));
      }
    });
  });
}
