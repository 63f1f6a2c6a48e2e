import { createAuthority } from '@sallyport/pki';
import { type ConsulRegistryOptions, consul } from '@sallyport/registry-consul';
import type { IssuedSource } from '@sallyport/testing';
import { Canary } from '../../support/canary.js';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { contextOf, RecordedEvents } from '../../support/registry-context.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';
import { requireServers } from '../../support/servers/programs.js';
import { quick } from './fleet.js';
import { ConsulWorld, RotatingToken } from './world.js';

const options: Partial<ConsulRegistryOptions> = {
  ...quick,
  timeouts: { requestMs: 300, operationMs: 600, waitMs: 1000 },
};

describe('T40: no failure of Consul shows the token', function () {
  this.timeout(60_000);
  requireServers('consul-1.8.7');

  it('neither in an error nor in an event, in whatever way it fails', async () => {
    await using world = await ConsulWorld.start();
    await using proxy = await FaultProxy.start(world.server.address);
    const issued = await world.tokenFor('canary');
    const token = new RotatingToken(issued);
    const unknown = 'f0e1d2c3-0000-4000-8000-c0ffee000001';
    const canary = new Canary([issued.secretId, unknown]);
    const { session, events, tls } = await world.open('canary', { token, address: proxy.address, options });
    const record = instanceOf('canary');
    const failing = async (fault: string) => {
      await canary.refused(`${fault}, list`, () => session.list('canary'));
      await canary.refused(`${fault}, update`, () => session.update(record));
    };
    const working = () => eventually(() => session.update(record), 10_000);
    await session.register(record);

    await canary.refused('a foreign name', () => session.register(instanceOf('billing')));
    await canary.refused('a foreign list', () => session.list('billing'));
    const unfit = { ...instanceOf('canary'), metadata: { ['k'.repeat(127)]: 'v' } };
    await canary.refused('an unfit record', () => session.register(unfit));

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

    const source = tls as IssuedSource;
    const foreign = createAuthority({ trustDomain: 'test.example' });
    source.rotate({
      identity: foreign.issue({ id: 'spiffe://test.example/svc/canary' }),
      bundlePem: foreign.bundlePem,
    });
    await failing('foreign CA');
    source.rotate({
      identity: world.authority.issue({ id: 'spiffe://test.example/svc/canary' }),
      bundlePem: world.authority.bundlePem,
    });
    await working();

    await world.server.acl.policy('canary', '');
    await failing('permission removed');
    await world.server.acl.revoke(issued);
    await failing('revoked');
    token.value = unknown;
    await failing('rotated to an unknown one');
    const late = new RecordedEvents();
    const another = consul(world.optionsFor(tls, token, { options }));
    await canary.refused('opened with an unknown one', () => another.open(contextOf('canary', { events: late })));
    await session.close();
    await failing('closed');

    canary.hear(session, another, token.secret, ...events.all, ...late.all);
    canary.assertSilent();
  });
});
