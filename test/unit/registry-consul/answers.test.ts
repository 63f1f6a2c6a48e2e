import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import type { RegistryEvent, RegistrySession } from '@sallyport/core';
import { systemClock } from '@sallyport/core/spi';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { type Answer, entryOf, FakeConsul, reply, TOKEN } from './fake-consul.js';

describe('what registry.consul() makes of strange answers', () => {
  let fake: FakeConsul;

  beforeEach(async () => {
    fake = await FakeConsul.start();
  });
  afterEach(() => fake[Symbol.asyncDispose]());

  const useless: readonly (readonly [promise: string, answer: Answer, says: RegExp])[] = [
    ['no answer at all', () => undefined, /no answer within 500 ms/],
    ['an answer that is too long', (response) => reply(response, 'x'.repeat(200_000)), /longer than 100000 bytes/],
    [
      'a body that breaks off',
      (response) => {
        response.setHeader('x-consul-index', '1');
        response.setHeader('content-length', '100');
        response.write('[');
        setTimeout(() => response.destroy(), 20);
      },
      /broke in the middle/,
    ],
    [
      'a body that never ends',
      (response) => {
        response.setHeader('x-consul-index', '1');
        response.write('[');
      },
      /no answer within 500 ms/,
    ],
    ['what is no JSON', (response) => response.setHeader('x-consul-index', '1').end('<html>'), /not one of Consul/],
    ['what is no list', (response) => reply(response, {}), /not one of Consul/],
    ['an index of 0', (response) => reply(response, [], 0), /not one of Consul/],
    ['no index', (response) => response.end('[]'), /not one of Consul/],
    [
      'a server without a leader',
      (response) => reply(response.setHeader('x-consul-knownleader', 'false'), []),
      /has no leader/,
    ],
    ['an internal error', (response) => response.writeHead(500).end(TOKEN), /failed with status 500/],
    ['a redirection', (response) => response.writeHead(302, { location: 'https://a/' }).end(), /status 302/],
  ];

  for (const [promise, answer, says] of useless) {
    it(`rejects ${promise}, and keeps the last known instances`, async () => {
      const record = instanceOf('greeter');
      fake.publish([entryOf(record)]);
      const session = await fake.open({ maxBodyBytes: 100_000 });
      const watch = observe(session);
      await eventually(() => assert.equal(watch.known.size, 1));

      fake.health = answer;
      fake.publish([]);
      const error = await session.list('greeter').then(
        () => assert.fail('it was taken for an answer'),
        (reason: Error) => reason,
      );
      await eventually(() => assert.equal(session.state, 'stale'));

      assert.match(error.message, says);
      assert.ok(!inspect([error, fake.events.all], { depth: 9 }).includes(TOKEN));
      assert.equal(watch.known.size, 1);
      watch.end();
    });
  }

  it('does not turn into a busy loop when Consul does not hold its queries', async () => {
    fake.health = (response) => reply(response, [], fake.queries + 1);
    const watch = observe(await fake.open());

    await new Promise((resolve) => setTimeout(resolve, 500));

    // Ten at once, then one every 20 ms; without a gap there are hundreds.
    assert.ok(fake.queries < 60, `${fake.queries} queries`);
    watch.end();
  });

  it('asks once for all who watch a service, and stops with the last of them', async () => {
    fake.publish([entryOf(instanceOf('greeter'))]);
    const session = await fake.open();
    const watches = [observe(session), observe(session), observe(session)];
    await eventually(() => assert.ok(watches.every(({ known }) => known.size === 1)));

    // One that was answered, one that waits.
    await eventually(() => assert.equal(fake.queries, 2));
    for (const watch of watches) watch.end();
    const { queries } = fake;
    fake.publish([]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(fake.queries, queries);
  });

  it('begins again when the index goes back', async () => {
    const [first, second] = [instanceOf('greeter'), instanceOf('greeter')];
    fake.publish([entryOf(first)], 1000);
    const watch = observe(await fake.open());
    await eventually(() => assert.equal(watch.known.size, 1));

    fake.publish([entryOf(second)], 5);
    await eventually(() => assert.deepEqual([...watch.known], [second.id]));
    fake.publish([entryOf(first), entryOf(second)], 6);

    await eventually(() => assert.equal(watch.known.size, 2));
    watch.end();
  });

  it('reads an instance anew after Consul has lost its data, even if its index happens to be the same', async () => {
    const record = instanceOf('greeter');
    fake.publish([entryOf(record)], 1000);
    const watch = (await fake.open()).watch('greeter')[Symbol.asyncIterator]();
    assert.equal((await watch.next()).value?.type, 'snapshot');

    fake.publish([entryOf({ ...record, zone: 'other' })], 5);

    const { value } = await watch.next();
    assert.equal(value?.type === 'changed' && value.instance.zone, 'other');
    await watch.return?.();
  });

  it('keeps the last instances for the grace when the catalogue has begun anew without any, and then lets go', async () => {
    fake.publish([entryOf(instanceOf('greeter'))], 1000);
    const session = await fake.open({ emptyGraceMs: 700 });
    const watch = observe(session);
    await eventually(() => assert.equal(watch.known.size, 1));

    const from = performance.now();
    fake.publish([], 5);
    await eventually(() => assert.equal(session.state, 'stale'));
    assert.equal(watch.known.size, 1);
    await eventually(() => assert.equal(watch.known.size, 0));

    assert.ok(performance.now() - from >= 650);
    assert.equal(session.state, 'fresh');
    watch.end();
  });

  it('keeps them for the whole grace, whatever becomes of the clock meanwhile', async () => {
    fake.publish([entryOf(instanceOf('greeter'))], 1000);
    let offset = 0;
    const session = await fake.open({ emptyGraceMs: 1500 }, { ...systemClock, now: () => Date.now() + offset });
    const watch = observe(session);
    await eventually(() => assert.equal(watch.known.size, 1));

    const from = performance.now();
    fake.publish([], 5);
    await eventually(() => assert.equal(session.state, 'stale'));
    offset = 3_600_000;
    fake.publish([], 6);
    await eventually(() => assert.equal(watch.known.size, 0));

    assert.ok(performance.now() - from >= 1400);
    watch.end();
  });

  it('takes an instance for registered only when its check has passed', async () => {
    let passes = 0;
    fake.other = (response, request, url) => {
      request.resume();
      if (url.pathname === '/v1/agent/services') return reply(response, {});
      if (!url.pathname.includes('/check/pass/')) return response.end();
      passes++;
      response.statusCode = passes < 3 ? 500 : 200;
      response.end(passes < 3 ? 'No cluster leader' : '');
    };
    fake.publish([]);
    const session = await fake.open({ timeouts: { requestMs: 500, operationMs: 5000, waitMs: 1000 } });

    await session.register(instanceOf('greeter'));

    assert.equal(passes, 3);
  });

  it('believes at once that the last instance has left, as long as Consul was there all the time', async () => {
    fake.publish([entryOf(instanceOf('greeter'))]);
    const watch = observe(await fake.open());
    await eventually(() => assert.equal(watch.known.size, 1));

    fake.publish([]);

    await eventually(() => assert.equal(watch.known.size, 0), 1000);
    watch.end();
  });

  it('believes no empty list while the token may not look', async () => {
    fake.publish([entryOf(instanceOf('greeter'))]);
    const session = await fake.open();
    const watch = observe(session);
    await eventually(() => assert.equal(watch.known.size, 1));

    fake.readable = false;
    fake.publish([]);
    await eventually(() => assert.equal(session.state, 'stale'));

    assert.equal(watch.known.size, 1);
    await assert.rejects(session.list('greeter'), { status: 'PERMISSION_DENIED' });
    watch.end();
  });

  it('lists only what passes, and reports what is no record, once', async () => {
    const good = instanceOf('greeter');
    const foreign = {
      ...entryOf(instanceOf('greeter', { id: 'greeter-x' })),
      Service: { ...service('web-1'), Meta: {} },
    };
    fake.publish([
      entryOf(good),
      entryOf(instanceOf('greeter'), 'critical'),
      entryOf(instanceOf('greeter'), 'warning'),
      foreign,
    ]);
    const session = await fake.open();
    const watch = observe(session);

    await eventually(() => assert.deepEqual([...watch.known], [good.id]));
    fake.publish([entryOf(good), foreign]);
    await eventually(() => assert.equal(fake.events.of('registry-record-refused').length, 1));

    assert.deepEqual(fake.events.of('registry-record-refused'), [
      { target: 'greeter', instance: '"web-1"', detail: 'it is not a record of Sallyport' },
    ]);
    watch.end();
  });

  it('takes of two entries with one id the older', async () => {
    const [record, impostor] = [instanceOf('greeter'), instanceOf('greeter')];
    const older = entryOf(record);
    const younger = {
      ...entryOf(record),
      Service: { ...service(record.id, impostor.zone), Address: '192.0.2.66', CreateIndex: 9 },
    };
    for (const entries of [
      [older, younger],
      [younger, older],
    ]) {
      fake.publish(entries);
      const [found] = await (await fake.open()).list('greeter');
      assert.equal(found?.endpoints[0]?.host, '127.0.0.1');
    }
  });

  it('knows 10,000 instances, no more, and says so', async function () {
    this.timeout(30_000);
    fake.publish(Array.from({ length: 10_001 }, () => entryOf(instanceOf('greeter'))));
    const session = await fake.open({ timeouts: { requestMs: 10_000 } });

    const from = performance.now();
    const watch = observe(session);
    await eventually(() => assert.equal(watch.known.size, 10_000), 20_000);

    console.log(`      10,000 instances known after ${Math.round(performance.now() - from)} ms`);
    assert.equal(fake.events.of('registry-record-refused')[0]?.detail, 'the service has more than 10000 instances');
    watch.end();
  });

  it('refuses a Consul without ACLs', async () => {
    fake.self = (response) => response.writeHead(401).end('ACL support disabled');

    const found: unknown = await fake.open().then(
      () => undefined,
      (error) => error.violations[0].id,
    );

    assert.equal(found, 'registry-anonymous');
  });

  it('refuses a record that does not fit into Meta, before anything is sent', async () => {
    const session = await fake.open();
    let asked = 0;
    fake.other = (response) => {
      asked++;
      reply(response, {});
    };
    const keys = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']));

    for (const metadata of [keys(60), { ['k'.repeat(126)]: 'v' }]) {
      await assert.rejects(session.register(instanceOf('greeter', { metadata })), { status: 'INVALID_ARGUMENT' });
    }

    assert.equal(asked, 0);
  });
});

interface Watching {
  readonly known: ReadonlySet<string>;
  end(): void;
}

function observe(session: RegistrySession): Watching {
  const known = new Set<string>();
  const abort = new AbortController();
  void read();
  async function read() {
    for await (const event of session.watch('greeter', { signal: abort.signal })) apply(known, event);
  }
  return { known, end: () => abort.abort() };
}

function apply(known: Set<string>, event: RegistryEvent): void {
  if (event.type === 'snapshot') known.clear();
  if (event.type === 'snapshot') for (const { id } of event.instances) known.add(id);
  if (event.type === 'added') known.add(event.instance.id);
  if (event.type === 'removed') known.delete(event.id);
}

function service(id: string, zone = ''): object {
  const { Service } = entryOf(instanceOf('greeter', { id, zone })) as { Service: object };
  return Service;
}
