import assert from 'node:assert/strict';
import { InsecureConfigurationError, type ViolationId } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { etcdRole } from '@sallyport/registry-etcd';
import { IssuedSource } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { EtcdServer } from '../../support/servers/etcd-server.js';
import { Etcdctl } from '../../support/servers/etcdctl.js';
import { requireServers } from '../../support/servers/programs.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';
import { EtcdWorld, type ParticipantOptions, SERVER_ID, TRUST_DOMAIN } from './world.js';

for (const version of ['3.4', '3.5'] as const) {
  describe(`the security of registry.etcd() on etcd ${version}`, function () {
    this.timeout(30_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    let world: EtcdWorld;

    before(async () => {
      world = await EtcdWorld.start({ version });
    });
    after(() => world?.[Symbol.asyncDispose]());
    afterEach(() => world.closeSessions());

    async function refusedWith(
      user: string,
      options?: ParticipantOptions,
    ): Promise<{ id: ViolationId; problem: string }> {
      const error = await world.openAs(user, options).then(
        () => assert.fail('it was let through'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof InsecureConfigurationError, String(error));
      const [violation] = error.violations;
      assert.ok(violation);
      return violation;
    }

    describe('the preflight', () => {
      it('lets the role of the template pass', async () => {
        await world.open('modest', { reads: ['other'] });
      });

      it('refuses the user root by name', async () => {
        const { id, problem } = await refusedWith('root');

        assert.equal(id, 'registry-credential-too-powerful');
        assert.match(problem, /^the user root may do everything/);
      });

      it('refuses a user with the role root by name', async () => {
        await world.server.auth.user('deputy', { roles: ['root'] });

        const { id, problem } = await refusedWith('deputy');

        assert.equal(id, 'registry-credential-too-powerful');
        assert.match(problem, /^the user deputy has the role root/);
      });

      it('refuses a user that may write all keys, those of other services, or read what is none of the registry', async () => {
        const cases = [
          ['everything', { access: 'readwrite', prefix: '' }, /may write beyond/],
          ['others', { access: 'readwrite', prefix: '/sallyport/v1/services/' }, /may write beyond/],
          ['neighbour', { access: 'write', key: '/sallyport/v1/services/neighbours/x' }, /may write beyond/],
          ['curious', { access: 'read', prefix: '/' }, /may read beyond/],
        ] as const;
        for (const [user, permission, message] of cases) {
          await world.server.auth.role(user, [permission]);
          await world.server.auth.user(user, { roles: [user] });

          const { id, problem } = await refusedWith(user);

          assert.equal(id, 'registry-credential-too-powerful');
          assert.match(problem, message);
        }
      });

      it('lets root pass for a reason that is given, and says so in an event', async () => {
        const { events } = await world.openAs('root', { options: { allowRootUser: { reason: 'restoring a backup' } } });

        assert.deepEqual(events.of('registry-credential-too-powerful'), [
          {
            registry: 'etcd',
            credential: 'user root',
            detail: 'the user root may do everything in etcd',
            reason: 'restoring a backup',
          },
        ]);
      });

      it('tells a user that may not read from a service without instances', async () => {
        await world.server.auth.user('nobody', { roles: [] });

        await assert.rejects(world.openAs('nobody'), {
          status: 'PERMISSION_DENIED',
          message: 'the etcd user nobody may not read /sallyport/v1/services/nobody/',
        });
        const { session } = await world.open('empty');
        assert.deepEqual(await session.list('empty'), []);
        await assert.rejects(session.list('nobody'), { status: 'PERMISSION_DENIED' });
      });

      it('tells a user that does not exist', async () => {
        await assert.rejects(world.openAs('stranger'), (error: Error) =>
          /PERMISSION_DENIED|UNAUTHENTICATED/.test(Reflect.get(error, 'status')),
        );
      });

      it('refuses a certificate that names no user', async () => {
        const source = new IssuedSource({
          identity: world.authority.issue({ id: `spiffe://${TRUST_DOMAIN}/svc/anonymous` }),
          bundlePem: world.authority.bundlePem,
        });

        assert.equal((await refusedWith('anonymous', { source })).id, 'registry-anonymous');
      });
    });

    it('T34 registers nobody who may not', async () => {
      const { session } = await world.open('allowed');

      await assert.rejects(session.register(instanceOf('forbidden')), { status: 'PERMISSION_DENIED' });

      assert.deepEqual(await world.server.keys('/sallyport/v1/services/forbidden/'), []);
    });

    it('T35 lets a stolen credential write no other name, delete none and read none it was not given', async () => {
      const victim = await world.open('victim');
      const record = instanceOf('victim');
      await victim.session.register(record);
      const { session } = await world.open('thief', { reads: ['victim'] });

      await assert.rejects(session.register({ ...record, id: 'victim-stolen' }), { status: 'PERMISSION_DENIED' });
      await assert.rejects(session.register({ ...record, zone: 'stolen' }), { status: 'PERMISSION_DENIED' });
      await session.deregister(record.id);
      await assert.rejects(session.list('modest'), { status: 'PERMISSION_DENIED' });

      assert.deepEqual(
        (await session.list('victim')).map(({ id, zone }) => [id, zone]),
        [[record.id, record.zone]],
      );
    });

    it('T36 sends nothing to a server with a certificate of a foreign CA', async () => {
      const foreign = createAuthority({ trustDomain: TRUST_DOMAIN });
      await using impostor = await EtcdServer.start({ pki: foreign, version });

      const { session, events } = await world.open('careful', { endpoints: impostor.addresses });

      assert.equal(session.state, 'down');
      assert.equal(events.of('server-identity-refused')[0]?.reason, 'untrusted-issuer');
    });

    it('connects to the server that is expected, and to no other of the same CA', async () => {
      const { session } = await world.open('expecting', { options: { identity: SERVER_ID } });
      assert.equal(session.state, 'fresh');

      const other = await world.open('expecting', {
        options: { identity: `spiffe://${TRUST_DOMAIN}/registry/consul` },
      });

      assert.equal(other.session.state, 'down');
      assert.deepEqual(
        other.events.of('server-identity-refused').map(({ reason, presented }) => [reason, presented])[0],
        ['wrong-identity', SERVER_ID],
      );
    });

    it('connects to a server by a name of its certificate, and by no other', async () => {
      const { port } = new URL(world.server.address);
      const { session } = await world.open('named', { endpoints: [`https://localhost:${port}`] });
      assert.equal(session.state, 'fresh');

      const other = await world.open('named', { endpoints: [`https://[::ffff:127.0.0.1]:${port}`] });

      assert.equal(other.session.state, 'down');
      assert.deepEqual(other.events.of('server-identity-refused').map(({ reason, detail }) => [reason, detail])[0], [
        'wrong-identity',
        'ERR_TLS_CERT_ALTNAME_INVALID',
      ]);
    });

    it('drops records that stand where they do not belong, and says so once', async () => {
      const { session, events } = await world.open('reader', { reads: ['poisoned'] });
      const good = instanceOf('poisoned');
      const prefix = '/sallyport/v1/services/poisoned/';
      await world.server.put(`${prefix}${good.id}`, JSON.stringify({ owner: 'x', record: good }));
      await world.server.put(`${prefix}poisoned-a`, 'no JSON');
      await world.server.put(`${prefix}poisoned-b`, JSON.stringify({ owner: 'x', record: good }));
      await world.server.put(
        `${prefix}poisoned-c`,
        JSON.stringify({ owner: 'x', record: { ...good, id: 'poisoned-c', weight: -1 } }),
      );
      await world.server.put(
        `${prefix}poisoned-d`,
        JSON.stringify({ owner: 'x', record: { ...good, pad: 'x'.repeat(20_000) } }),
      );

      const iterator = session.watch('poisoned')[Symbol.asyncIterator]();
      const { value: first } = await iterator.next();
      const listed = await session.list('poisoned');

      assert.deepEqual(first, { type: 'snapshot', instances: listed });
      assert.deepEqual(
        listed.map(({ id }) => id),
        [good.id],
      );
      await eventually(() => assert.equal(events.of('registry-record-refused').length, 4));
      await iterator.return?.();
    });
  });

  describe(`an etcd ${version} without authentication`, function () {
    this.timeout(30_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);

    it('is not used', async () => {
      using folder = temporaryFolder();
      await using world = await EtcdWorld.start({ version });
      await world.allow('greeter');
      await (await etcdctlAs(world, 'root', version, folder)).run(world.server.addresses, ['auth', 'disable']);

      for (const user of ['greeter', 'stranger']) {
        await assert.rejects(world.openAs(user), (error) => {
          assert.ok(error instanceof InsecureConfigurationError);
          assert.equal(error.violations[0]?.id, 'registry-anonymous');
          return true;
        });
      }
    });
  });

  describe(`the role of the template on etcd ${version}`, function () {
    this.timeout(30_000);
    requireServers(`etcd-${version}`, `etcdctl-${version}`);

    it('allows what one service needs, and denies what must be denied', async () => {
      await using world = await EtcdWorld.start({ version });
      const { permissions } = etcdRole('orders', { reads: ['stock'] });
      await world.server.auth.role('orders', permissions);
      await world.server.auth.user('orders', { roles: ['orders'] });
      using folder = temporaryFolder();
      const etcdctl = await etcdctlAs(world, 'orders', version, folder);
      const isAllowed = (...args: string[]) =>
        etcdctl.run(world.server.addresses, args).then(
          () => true,
          (error: Error) => {
            assert.match(error.message, /permission denied/);
            return false;
          },
        );
      const own = '/sallyport/v1/services/orders/';
      const called = '/sallyport/v1/services/stock/';

      assert.equal(await isAllowed('put', `${own}x`, '1'), true);
      assert.equal(await isAllowed('get', '--prefix', own), true);
      assert.equal(await isAllowed('get', '--prefix', called), true);
      assert.equal(await isAllowed('del', `${own}x`), true);

      assert.equal(await isAllowed('put', `${called}x`, '1'), false);
      assert.equal(await isAllowed('del', `${called}x`), false);
      assert.equal(await isAllowed('put', '/sallyport/v1/services/orders', '1'), false);
      assert.equal(await isAllowed('put', '/sallyport/v1/services/orders0', '1'), false);
      assert.equal(await isAllowed('get', '--prefix', '/sallyport/v1/services/'), false);
      assert.equal(await isAllowed('get', '--prefix', ''), false);
      assert.equal(await isAllowed('put', '/elsewhere', '1'), false);
      assert.equal(await isAllowed('user', 'list'), false);
      assert.equal(await isAllowed('role', 'add', 'more'), false);
      assert.equal(await isAllowed('auth', 'disable'), false);
    });

    it('is made by the commands of the template', async () => {
      await using world = await EtcdWorld.start({ version });
      using folder = temporaryFolder();
      const root = await etcdctlAs(world, 'root', version, folder);

      for (const command of etcdRole('orders', { reads: ['stock'] }).commands) {
        const [program, ...args] = command.split(' ');
        assert.equal(program, 'etcdctl');
        await root.run(world.server.addresses, args);
      }

      const { session } = await world.openAs('orders');
      await session.register(instanceOf('orders'));
      assert.equal((await session.list('orders')).length, 1);
      assert.deepEqual(await session.list('stock'), []);
      await assert.rejects(session.list('billing'), { status: 'PERMISSION_DENIED' });
    });
  });
}

async function etcdctlAs(
  world: EtcdWorld,
  user: string,
  version: '3.4' | '3.5',
  folder: TemporaryFolder,
): Promise<Etcdctl> {
  const files = await world.identityOf(user).write(folder.path, { name: user });
  return new Etcdctl({ program: `etcdctl-${version}`, files });
}
