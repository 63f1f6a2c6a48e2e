import assert from 'node:assert/strict';
import { CallError, defineContract, type Registry, registry, type StatusName, unary } from '@sallyport/core';
import { type Mesh, mesh } from '@sallyport/testing';
import { z } from 'zod';
import { eventually } from '../../../support/eventually.js';

const Greeter = defineContract('demo.v1.Greeter', { hello: unary(z.object({}), z.object({ text: z.string() })) });

describe('a cold start without a registry', () => {
  let world: Mesh;
  let failing: FailingRegistry;

  beforeEach(() => {
    failing = failingRegistry();
    world = mesh({ registry: failing });
  });

  afterEach(() => world.stop());

  function greeter() {
    const caller = world.id('web');
    return world
      .service('greeter', { authorize: [{ effect: 'allow', from: caller, to: 'demo.v1.Greeter/*' }] })
      .handle(Greeter, { hello: () => ({ text: 'hello' }) });
  }

  it('listens, is not ready and says why', async () => {
    failing.with = 'UNAVAILABLE';
    const service = greeter();

    await service.start();

    assert.equal(service.state, 'listening');
    assert.equal(service.endpoints.length, 1);
    assert.deepEqual(service.readiness, { ready: false, reasons: ['the service is listening'] });
  });

  it('registers and becomes ready as soon as the registry is there, and is found then', async () => {
    failing.with = 'UNAVAILABLE';
    const service = greeter();
    const heard: boolean[] = [];
    service.on('readiness', ({ ready }) => heard.push(ready));
    await service.start();
    await eventually(() => assert.ok(failing.attempts >= 3));

    failing.with = undefined;
    await eventually(() => assert.equal(service.state, 'ready'));

    assert.deepEqual(heard, [false, true]);
    const web = await world.callerAs('web');
    assert.deepEqual(await web.client(Greeter, { service: 'greeter' }).hello({}), { text: 'hello' });
  });

  it('keeps asking, and says so, when the registry comes back and refuses', async () => {
    failing.with = 'UNAVAILABLE';
    const service = greeter();
    const details: string[] = [];
    service.on('registry-state', ({ detail }) => details.push(detail));
    await service.start();

    failing.with = 'PERMISSION_DENIED';
    await eventually(() => assert.ok(details.length > 0));
    failing.with = undefined;
    await eventually(() => assert.equal(service.state, 'ready'));

    assert.equal(details[0], 'failing on purpose');
  });

  it('does not start at all when the registry refuses it', async () => {
    failing.with = 'PERMISSION_DENIED';
    const service = greeter();

    await assert.rejects(service.start(), { status: 'PERMISSION_DENIED' });

    assert.equal(service.state, 'stopped');
  });

  it('stops while it still tries, and leaves nothing behind', async () => {
    failing.with = 'UNAVAILABLE';
    const service = greeter();
    await service.start();

    await service.stop();
    const { attempts } = failing;
    failing.with = undefined;
    await new Promise((resolve) => setTimeout(resolve, 300));

    assert.equal(service.state, 'stopped');
    assert.equal(failing.attempts, attempts);
  });
});

interface FailingRegistry extends Registry {
  /** Status with which it refuses to register; undefined: it works. */
  with: StatusName | undefined;
  attempts: number;
}

/** The memory registry, but nobody can register for a while. */
function failingRegistry(): FailingRegistry {
  const memory = registry.memory();
  const failing: FailingRegistry = {
    ...memory,
    with: undefined,
    attempts: 0,
    async open(context) {
      const session = await memory.open(context);
      return new Proxy(session, {
        get(target, name) {
          if (name === 'register') return register;
          const member: unknown = Reflect.get(target, name, target);
          return typeof member === 'function' ? member.bind(target) : member;
        },
      });
      async function register(record: Parameters<typeof session.register>[0]) {
        failing.attempts++;
        if (failing.with) throw new CallError(failing.with, 'failing on purpose');
        await session.register(record);
      }
    },
  };
  return failing;
}
