import { createAuthority } from '@sallyport/pki';
import { Canary } from '../../support/canary.js';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { EtcdWorld, RotatingPassword } from './world.js';

const options = { timeouts: { requestMs: 500, handshakeMs: 500 }, retry: { totalMs: 1000 } };

describe('T40: no failure of etcd shows the password', function () {
  this.timeout(60_000);
  requireServers('etcd-3.5', 'etcdctl-3.5');

  it('neither in an error nor in an event, in whatever way it fails', async () => {
    await using world = await EtcdWorld.start({ version: '3.5', auth: 'password', authTokenTtlS: 1 });
    await using proxy = await FaultProxy.start(world.server.address);
    const { session, events, source, password, registry } = await world.open('canary', {
      endpoints: [proxy.address],
      options,
    });
    const [first = '', later] = [password?.value, new RotatingPassword()];
    const canary = new Canary([first, later.value]);
    const record = instanceOf('canary');
    const failing = async (fault: string) => {
      await canary.refused(`${fault}, list`, () => session.list('canary'));
      await canary.refused(`${fault}, update`, () => session.update(record));
    };
    const working = () => eventually(() => session.update(record), 10_000);
    await session.register(record);

    await canary.refused('a foreign name', () => session.register(instanceOf('billing')));
    await canary.refused('a foreign list', () => session.list('billing'));

    proxy.stall();
    await failing('stall');
    proxy.resume();
    proxy.resetEvery(1);
    await failing('resets');
    proxy.resetEvery(undefined);
    await working();
    await world.server.kill();
    await failing('dead');
    await world.server.restart();
    await working();

    const foreign = createAuthority({ trustDomain: 'test.example' });
    source.rotate({ identity: world.identityOf('canary', foreign), bundlePem: foreign.bundlePem });
    await failing('foreign CA');
    source.rotate({ identity: world.identityOf('canary'), bundlePem: world.authority.bundlePem });
    await working();

    await world.server.auth.role('sallyport-canary', []);
    await failing('permission removed');
    await world.allow('canary', [], later);
    await world.server.restart(); // forgets the login
    await failing('password changed behind its back');
    await canary.refused('opened with a wrong one', () => world.openAs('canary', {}, password));
    await world.server.auth.removeUser('canary');
    await canary.refused('opened for nobody', () => world.openAs('canary', {}, later));
    await session.close();
    await failing('closed');

    canary.hear(session, registry, password?.secret, ...events.all);
    canary.assertSilent();
  });
});
