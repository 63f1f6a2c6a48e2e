import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Registry, RegistrySession, RuleSource, ServiceState } from '@sallyport/core';
import {
  allow,
  CallError,
  createService,
  defineContract,
  InsecureConfigurationError,
  registry,
  type Service,
  type ServiceOptions,
  silentLogger,
  tls,
  UsageError,
  unary,
} from '@sallyport/core';
import { type ServerTransport, violation } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { fakeClock, IssuedSource } from '@sallyport/testing';
import { client, server } from '@sallyport/transport-mtls';
import { z } from 'zod';
import { contextOf } from '../../../support/registry-context.js';

const Greeter = defineContract('unit.v1.Greeter', { hello: unary(z.object({}), z.object({})) });

const authority = createAuthority({ trustDomain: 'unit.test' });

function identity(ttlMs?: number): IssuedSource {
  const id = 'spiffe://unit.test/svc/greeter';
  return new IssuedSource({
    identity: authority.issue({ id, ...(ttlMs === undefined ? {} : { ttlMs }) }),
    bundlePem: authority.bundlePem,
  });
}

/** A service whose every part is real, but for what the test replaces. */
function greeter(options: Partial<ServiceOptions> = {}): Service {
  return createService({
    name: 'greeter',
    version: '1.0.0',
    tls: identity(),
    registry: registry.memory(),
    server: server(),
    client: client(),
    authorize: [allow({ from: 'spiffe://unit.test/svc/web', to: 'unit.v1.Greeter/*' })],
    drain: { spreadMs: 0, graceMs: 500 },
    logger: silentLogger,
    ...options,
  });
}

function statesOf(service: Service): ServiceState[] {
  const states: ServiceState[] = [];
  service.on('service-state', ({ from, to }) => {
    if (states.length === 0) states.push(from);
    states.push(to);
  });
  return states;
}

/** The memory registry, with some of what a session does replaced. */
function registryWith(change: (session: RegistrySession) => Partial<RegistrySession>): Registry {
  const inner = registry.memory();
  return {
    kind: inner.kind,
    reach: inner.reach,
    check: () => inner.check(),
    async open(context) {
      const session = await inner.open(context);
      const bound: RegistrySession = {
        get state() {
          return session.state;
        },
        register: (record) => session.register(record),
        update: (record) => session.update(record),
        deregister: (id) => session.deregister(id),
        list: (service, given) => session.list(service, given),
        watch: (service, given) => session.watch(service, given),
        close: () => session.close(),
      };
      return Object.defineProperties(bound, Object.getOwnPropertyDescriptors(change(session)));
    },
  };
}

async function registered(where: Registry): Promise<readonly string[]> {
  const session = await where.open(contextOf('observer'));
  const records = await session.list('greeter');
  await session.close();
  return records.map(({ state }) => state);
}

/** `refused` when nobody listens. */
async function dial(port: number): Promise<'accepted' | 'refused'> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return 'accepted';
  } catch {
    return 'refused';
  } finally {
    socket.destroy();
  }
}

function portOf(service: Service): number {
  const port = service.endpoints[0]?.port;
  assert.ok(port);
  return port;
}

describe('the life of a service', () => {
  it('goes from created to stopped, state by state, and tells of each', async () => {
    const service = greeter().handle(Greeter, { hello: () => ({}) });
    const states = statesOf(service);
    const events: string[] = [];
    service.on('*', ({ type }) => type !== 'service-state' && events.push(type));
    assert.equal(service.state, 'created');

    await service.start();
    assert.equal(service.state, 'ready');
    await service.stop();

    assert.deepEqual(states, ['created', 'validated', 'listening', 'registered', 'ready', 'draining', 'stopped']);
    assert.deepEqual(events, ['listening', 'instance-registered', 'readiness', 'readiness', 'instance-deregistered']);
  });

  it('has neither a port nor a record when it only calls', async () => {
    const shared = registry.memory();
    const { server: _, authorize: __, ...rest } = optionsOf(shared);
    const service = createService(rest);
    const states = statesOf(service);

    await service.start();

    assert.deepEqual(service.endpoints, []);
    assert.deepEqual(await registered(shared), []);
    await service.stop();
    assert.deepEqual(states, ['created', 'validated', 'ready', 'draining', 'stopped']);
  });

  it('is registered while it is ready, and nowhere to be found afterwards', async () => {
    const shared = registry.memory();
    const service = greeter({ registry: shared });

    await service.start();
    const port = portOf(service);
    assert.deepEqual(await registered(shared), ['ready']);
    assert.equal(await dial(port), 'accepted');
    await service.stop();

    assert.deepEqual(await registered(shared), []);
    assert.equal(await dial(port), 'refused');
    assert.deepEqual(service.endpoints, []);
  });

  it('tells the registry that it drains before it stops', async () => {
    const updates: string[] = [];
    const service = greeter({
      registry: registryWith((session) => ({
        update: async (record) => {
          updates.push(record.state);
          await session.update(record);
        },
      })),
    });
    await service.start();

    await service.stop();

    assert.deepEqual(updates, ['draining']);
  });

  it('stops although the registry is out of reach', async () => {
    const unreachable = async () => {
      throw new CallError('UNAVAILABLE', 'no contact');
    };
    const service = greeter({
      registry: registryWith(() => ({ update: unreachable, deregister: unreachable, close: unreachable })),
    });
    await service.start();
    const port = portOf(service);

    await service.stop();

    assert.equal(service.state, 'stopped');
    assert.equal(await dial(port), 'refused');
  });

  describe('is started once', () => {
    it('and refuses a second time, during and after the first', async () => {
      const service = greeter();

      const first = service.start();
      await assert.rejects(service.start(), UsageError);
      await first;
      await assert.rejects(service.start(), UsageError);

      assert.equal(service.state, 'ready');
      await service.stop();
      await assert.rejects(service.start(), UsageError);
    });

    it('and never after stop(), not even in the same turn', async () => {
      const service = greeter();

      const stopped = service.stop();
      await assert.rejects(service.start(), UsageError);
      await stopped;

      assert.equal(service.state, 'stopped');
      assert.deepEqual(service.endpoints, []);
    });
  });

  describe('is stopped', () => {
    it('twice without harm, at once or one after the other', async () => {
      const service = greeter();
      await service.start();

      await Promise.all([service.stop(), service.stop()]);
      await service.stop();

      assert.equal(service.state, 'stopped');
    });

    it('before it was started', async () => {
      const service = greeter();

      await service.stop();

      assert.equal(service.state, 'stopped');
    });

    it('while it starts: the start ends first', async () => {
      const shared = registry.memory();
      const service = greeter({ registry: shared });

      const started = service.start();
      const stopped = service.stop();
      await started;
      await stopped;

      assert.equal(service.state, 'stopped');
      assert.deepEqual(await registered(shared), []);
    });

    it('after a start that failed', async () => {
      const service = greeter({ version: 'one' });
      await assert.rejects(service.start(), InsecureConfigurationError);

      await service.stop();

      assert.equal(service.state, 'stopped');
    });
  });

  describe('starts completely or not at all', () => {
    it('when the port is taken', async () => {
      const shared = registry.memory();
      const taken = createServer().listen(0, '127.0.0.1');
      await once(taken, 'listening');
      const { port } = taken.address() as { port: number };
      const service = greeter({ registry: shared, server: server({ address: `127.0.0.1:${port}` }) });
      const states = statesOf(service);

      await assert.rejects(service.start(), {
        message: `cannot listen on 127.0.0.1:${port}: another program listens there (EADDRINUSE)`,
      });

      assert.deepEqual(states, ['created', 'validated', 'stopped']);
      assert.deepEqual(await registered(shared), []);
      taken.close();
    });

    it('when the registry cannot be opened', async () => {
      let listened = false;
      const inner = registry.memory();
      const service = greeter({
        registry: {
          kind: 'memory',
          reach: 'machine',
          check: () => inner.check(),
          open: () => Promise.reject(new CallError('UNAVAILABLE', 'no contact')),
        },
        server: listening(() => {
          listened = true;
        }),
      });

      await assert.rejects(service.start(), { message: 'no contact' });

      assert.equal(listened, false);
      assert.equal(service.state, 'stopped');
    });

    it('when the registry takes no record', async () => {
      let port = 0;
      const service = greeter({
        registry: registryWith(() => ({
          async register(record) {
            port = record.endpoints[0]?.port ?? 0;
            assert.equal(await dial(port), 'accepted');
            throw new CallError('PERMISSION_DENIED', 'not you');
          },
        })),
      });

      await assert.rejects(service.start(), { message: 'not you' });

      assert.notEqual(port, 0);
      assert.equal(await dial(port), 'refused');
      assert.deepEqual(service.endpoints, []);
      assert.equal(service.state, 'stopped');
    });

    it('when the server cannot listen', async () => {
      let closed = false;
      const service = greeter({
        registry: registryWith((session) => ({
          async close() {
            closed = true;
            await session.close();
          },
        })),
        server: listening(() => {
          throw new Error('no socket');
        }),
      });

      await assert.rejects(service.start(), { message: 'no socket' });

      assert.equal(closed, true);
    });

    it('when the rules cannot be opened', async () => {
      let listened = false;
      const rules: RuleSource = {
        kind: 'broken',
        check: async () => [],
        open: () => Promise.reject(new Error('no rules')),
      } as unknown as RuleSource;
      const service = greeter({
        authorize: rules,
        server: listening(() => {
          listened = true;
        }),
      });

      await assert.rejects(service.start(), { message: 'no rules' });

      assert.equal(listened, false);
    });

    it('and names every violation of every part at once', async () => {
      const shared = registry.memory();
      const service = createService({
        ...optionsOf(shared),
        version: 'one',
        server: server({ address: 'nowhere', requireClientCert: false as never }),
        client: client({ defaultDeadlineMs: 0 }),
        authorize: [allow({ from: '*', to: 'unit.v1.Greeter/*' })],
        verbose: true,
      } as ServiceOptions);
      service.client(Greeter, { service: 'other', version: 'newest' });
      const refused: string[][] = [];
      service.on('configuration-refused', ({ violations }) => refused.push(violations.map((v) => v.path)));

      const error = await service.start().catch((reason) => reason);

      assert.ok(error instanceof InsecureConfigurationError);
      const found = error.violations.map(({ id, path }) => `${id} ${path}`).sort();
      assert.deepEqual(found, [
        'authorization-allow-all service.authorize[0].from',
        'limit-unbounded client.defaultDeadlineMs',
        'option-invalid client().version',
        'option-invalid server.address',
        'option-invalid service.version',
        'option-unknown service.verbose',
        'server-client-certificate-optional server.requireClientCert',
      ]);
      assert.equal(refused.length, 1);
      assert.equal(refused[0]?.length, 7);
      assert.deepEqual(await registered(shared), []);
    });

    it('and names a certificate of another service beside everything else', async () => {
      const service = greeter({ name: 'other', version: 'one' });

      const error = await service.start().catch((reason) => reason);

      assert.ok(error instanceof InsecureConfigurationError);
      assert.deepEqual(error.violations.map(({ id, path }) => `${id} ${path}`).sort(), [
        'identity-mismatch service.tls',
        'option-invalid service.version',
      ]);
    });

    it('and says so where the name is missing', async () => {
      const nameless = createService({} as unknown as ServiceOptions);

      await assert.rejects(nameless.start(), { message: /^service \(unnamed\) refused to start, / });
    });

    it('and asks no identity of a service without a valid name', async () => {
      const error = await greeter({ name: 'Not A Name' })
        .start()
        .catch((reason) => reason);

      assert.ok(error instanceof InsecureConfigurationError);
      assert.deepEqual(
        error.violations.map(({ path }) => path),
        ['service.name'],
      );
    });

    it('and says which factory makes what it was given by other means', async () => {
      const service = createService({
        ...optionsOf(registry.memory()),
        tls: { cert: 'a.pem' },
        registry: './registry',
        server: '127.0.0.1:8443',
        client: null,
        authorize: 'web',
      } as never);

      const error = await service.start().catch((reason) => reason);

      assert.ok(error instanceof InsecureConfigurationError);
      assert.deepEqual(error.violations.map(({ path, problem }) => `${path}: ${problem}`).sort(), [
        'service.authorize: expected a list of rules, [allow({ from, to })], or { version: 1, rules: [...] }',
        'service.client: expected client({...})',
        'service.registry: expected a registry, e.g. registry.local({...})',
        'service.server: expected server({...})',
        'service.tls: expected a source of certificates, e.g. tls.fromFiles({...})',
      ]);
    });

    it('and reports violations that only a check finds', async () => {
      const inner = registry.memory();
      const service = greeter({
        registry: { ...inner, check: async () => [violation('registry-directory-exposed', 'registry.directory')] },
      });

      await assert.rejects(service.start(), (error: InsecureConfigurationError) => {
        assert.deepEqual(
          error.violations.map(({ id }) => id),
          ['registry-directory-exposed'],
        );
        return true;
      });
    });

    it('and says once what two of its parts have in common', async () => {
      const shared = tls.fromFiles({ cert: '/nowhere/tls.pem', key: '/nowhere/tls.key', ca: '/nowhere/bundle.pem' });
      const service = greeter({ tls: shared, registry: { ...registry.memory(), check: () => shared.check() } });
      const once = (await shared.check()).map(({ path }) => path).sort();

      await assert.rejects(service.start(), (error: InsecureConfigurationError) => {
        assert.deepEqual(error.violations.map(({ path }) => path).sort(), once);
        return true;
      });
    });

    it('but both of two that differ in what is wrong', async () => {
      const check = async () => [
        violation('registry-directory-exposed', 'registry.directory', 'it belongs to somebody else'),
        violation('registry-directory-exposed', 'registry.directory', 'its mode is 0777'),
      ];
      const service = greeter({ registry: { ...registry.memory(), check } });

      await assert.rejects(service.start(), (error: InsecureConfigurationError) => {
        assert.deepEqual(
          error.violations.map(({ problem }) => problem),
          ['it belongs to somebody else', 'its mode is 0777'],
        );
        return true;
      });
    });
  });

  describe('takes handlers', () => {
    it('for every method of a contract and for nothing else', () => {
      const service = greeter();

      assert.throws(() => service.handle(Greeter, undefined as never), /unit\.v1\.Greeter: no handler for hello/);
      assert.throws(() => service.handle(Greeter, {} as never), /unit\.v1\.Greeter: no handler for hello/);
      assert.throws(
        () => service.handle(Greeter, { hello: () => ({}), bye: () => ({}) } as never),
        /unit\.v1\.Greeter has no method bye/,
      );
      assert.throws(() => service.handle(Greeter, { hello: 'hi' as never }), UsageError);
      assert.throws(() => service.handle({} as never, {} as never), UsageError);
      service.handle(Greeter, { hello: () => ({}) });
      assert.throws(() => service.handle(Greeter, { hello: () => ({}) }), /handles unit\.v1\.Greeter already/);
    });

    it('only before it starts', async () => {
      const service = greeter();

      const started = service.start();
      assert.throws(() => service.handle(Greeter, { hello: () => ({}) }), UsageError);
      await started;
      assert.throws(() => service.handle(Greeter, { hello: () => ({}) }), UsageError);
      await service.stop();
      assert.throws(() => service.handle(Greeter, { hello: () => ({}) }), UsageError);
    });
  });

  describe('makes clients', () => {
    it('that say so when they are used too early or too late', async () => {
      const service = greeter();
      const calls = service.client(Greeter, { service: 'other' });

      await assert.rejects(calls.hello({}), {
        status: 'UNAVAILABLE',
        message: 'greeter cannot call: call start() first',
      });
      await service.start();
      await service.stop();

      await assert.rejects(calls.hello({}), {
        status: 'UNAVAILABLE',
        message: 'greeter cannot call: it has been stopped',
      });
    });

    it('at once with their violations when it is running', async () => {
      const service = greeter();
      await service.start();

      assert.throws(() => service.client(Greeter, { service: 'Not A Name' }), InsecureConfigurationError);
      assert.throws(
        () => service.client(Greeter, { service: 'other', identity: [] }),
        (error: InsecureConfigurationError) => error.violations[0]?.id === 'identity-expectation-empty',
      );

      await service.stop();
    });

    it('of contracts that its own rules let it call, and of no others', async () => {
      const Other = defineContract('unit.v1.Other', { hello: unary(z.object({}), z.object({})) });
      const service = greeter({
        authorizeOutgoing: [allow({ from: 'spiffe://unit.test/svc/greeter', to: 'unit.v1.Other/*' })],
      });
      const allowed = service.client(Other, { service: 'other' });
      const forbidden = service.client(Greeter, { service: 'other' });
      await service.start();

      await assert.rejects(forbidden.hello({}), { status: 'PERMISSION_DENIED' });
      await assert.rejects(allowed.hello({}), { status: 'UNAVAILABLE' });

      await service.stop();
    });
  });

  describe('readiness', () => {
    it('says why not', async () => {
      const service = greeter();
      assert.deepEqual(service.readiness, { ready: false, reasons: ['the service is created'] });

      await service.start();
      assert.deepEqual(service.readiness, { ready: true, reasons: [] });

      await service.stop();
      assert.deepEqual(service.readiness, { ready: false, reasons: ['the service is stopped'] });
    });

    it('ends with the certificate', async () => {
      const clock = fakeClock();
      const service = greeter({ tls: identity(60_000), clock });
      await service.start();
      const told: unknown[] = [];
      service.on('readiness', ({ ready, reasons }) => told.push([ready, ...reasons]));

      await clock.advance(50_000);
      assert.equal(service.readiness.ready, true);
      await clock.advance(12_000);

      assert.deepEqual(service.readiness, { ready: false, reasons: ['the certificate has expired'] });
      assert.deepEqual(told, [[false, 'the certificate has expired']]);
      await service.stop();
    });

    it('comes back with a new certificate', async () => {
      const clock = fakeClock();
      const tls = identity(60_000);
      const service = greeter({ tls, clock });
      await service.start();
      await clock.advance(62_000);
      const told: boolean[] = [];
      service.on('readiness', ({ ready }) => told.push(ready));

      tls.rotate({
        identity: authority.issue({ id: 'spiffe://unit.test/svc/greeter' }),
        bundlePem: authority.bundlePem,
      });
      await clock.advance(2000);

      assert.equal(service.readiness.ready, true);
      assert.deepEqual(told, [true]);
      await service.stop();
    });

    it('follows the registry, and tells once of each change', async () => {
      const clock = fakeClock();
      let state: RegistrySession['state'] = 'fresh';
      const service = greeter({
        clock,
        registry: registryWith(() => ({
          get state() {
            return state;
          },
        })),
      });
      await service.start();
      const told: unknown[] = [];
      service.on('readiness', ({ ready, reasons }) => told.push([ready, ...reasons]));

      for (const next of ['stale', 'down', 'fresh'] as const) {
        state = next;
        await clock.advance(3000);
      }

      assert.deepEqual(told, [[false, 'the registry is down'], [true]]);
      await service.stop();
    });
  });
});

function optionsOf(shared: Registry): ServiceOptions {
  return {
    name: 'greeter',
    version: '1.0.0',
    tls: identity(),
    registry: shared,
    server: server(),
    client: client(),
    authorize: [],
    logger: silentLogger,
  };
}

/** A server that does what the test says when it should listen. */
function listening(onListen: () => void): ServerTransport {
  return {
    check: () => [],
    unaryDeadlineMs: 1000,
    async listen() {
      onListen();
      throw new Error('never reached');
    },
  };
}
