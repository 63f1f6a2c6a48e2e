import assert from 'node:assert/strict';
import { registry } from '@sallyport/core';
import { instanceOf } from '../../../support/instance.js';
import { contextOf } from '../../../support/registry-context.js';

describe('memory registry', () => {
  it('refuses options, since it has none', async () => {
    const mistaken = Reflect.apply(registry.memory, undefined, [{ ttlMs: 1000 }]) as ReturnType<typeof registry.memory>;

    const violations = await mistaken.check();

    assert.deepEqual(
      violations.map(({ id, path }) => ({ id, path })),
      [{ id: 'option-unknown', path: 'registry.memory.ttlMs' }],
    );
    await assert.rejects(mistaken.open(contextOf('greeter')), { name: 'InsecureConfigurationError' });
  });

  it('has nothing to complain of by itself', async () => {
    assert.deepEqual(await registry.memory().check(), []);
  });

  it('shares nothing with another memory registry', async () => {
    const one = await registry.memory().open(contextOf('greeter'));
    const other = await registry.memory().open(contextOf('greeter'));

    await one.register(instanceOf('greeter'));

    assert.equal((await one.list('greeter')).length, 1);
    assert.deepEqual(await other.list('greeter'), []);
  });

  it('refuses to give an id to a second service of the same owner', async () => {
    const session = await registry.memory().open(contextOf('demo'));
    await session.register(instanceOf('demo', { id: 'demo-web-1' }));

    await assert.rejects(session.register(instanceOf('demo-web', { id: 'demo-web-1' })), { status: 'ALREADY_EXISTS' });
    await assert.rejects(session.update(instanceOf('demo-web', { id: 'demo-web-1' })), { status: 'NOT_FOUND' });
  });

  it('is silent when an update changes nothing', async () => {
    const session = await registry.memory().open(contextOf('greeter'));
    const record = instanceOf('greeter');
    await session.register(record);
    const events = session.watch('greeter')[Symbol.asyncIterator]();
    await events.next();

    await session.update({ ...record });
    await session.update({ ...record, zone: 'b' });

    const { value } = await events.next();
    assert.deepEqual(value, { type: 'changed', instance: { ...record, zone: 'b' } });
  });

  it('stops a list whose signal has aborted', async () => {
    const session = await registry.memory().open(contextOf('greeter'));

    await assert.rejects(session.list('greeter', { signal: AbortSignal.abort() }), { name: 'AbortError' });
  });
});
