import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import type { InstanceRecord, RegistryEvent, RegistrySession } from '@sallyport/core';
import { registry } from '@sallyport/core';
import { ChangeFeed, followService, type RegistryViewOptions } from '@sallyport/core/spi';
import { eventually } from '../../../support/eventually.js';
import { instanceOf } from '../../../support/instance.js';
import { contextOf, ManualClock, RecordedEvents } from '../../../support/registry-context.js';

/** A registry that says what the test tells it to say. */
class ScriptedSession implements RegistrySession {
  readonly state = 'fresh';
  readonly feeds = new Set<ChangeFeed>();
  watches = 0;
  failure: Error | undefined;
  instances: unknown[] = [];

  watch(service: string, { signal }: { signal?: AbortSignal } = {}): AsyncIterable<RegistryEvent> {
    this.watches += 1;
    if (this.failure) throw this.failure;
    const snapshot = () => this.instances as InstanceRecord[];
    const feed = new ChangeFeed({ service, snapshot, memberOf: [this.feeds], signal });
    return { [Symbol.asyncIterator]: () => feed };
  }

  tell(event: RegistryEvent): void {
    for (const feed of this.feeds) feed.push(event);
  }

  hangUp(): void {
    for (const feed of this.feeds) feed.end();
  }

  async register(): Promise<void> {}
  async update(): Promise<void> {}
  async deregister(): Promise<void> {}
  async list(): Promise<InstanceRecord[]> {
    return [];
  }
  async close(): Promise<void> {}
}

const soon = () => Date.now() + 2000;

function follow(session: RegistrySession, options: Partial<RegistryViewOptions> = {}) {
  const events = new RecordedEvents();
  const clock = new ManualClock();
  const view = followService({
    service: 'greeter',
    session,
    registry: 'scripted',
    events,
    clock,
    endpoints: { allowLoopback: true },
    random: () => 1,
    ...options,
  });
  return { view, events, clock };
}

const statesOf = (events: RecordedEvents) => events.of('registry-state').map(({ state }) => state);

describe('registry view', () => {
  it('is down and empty until the registry answers, then fresh', async () => {
    const session = new ScriptedSession();
    session.instances = [instanceOf('greeter', { id: 'greeter-b' }), instanceOf('greeter', { id: 'greeter-a' })];
    const { view, events } = follow(session);
    assert.deepEqual([view.state, view.version, view.instances()], ['down', 0, []]);

    await view.ready(soon());

    assert.equal(view.state, 'fresh');
    assert.deepEqual(
      view.instances().map(({ id }) => id),
      ['greeter-a', 'greeter-b'],
    );
    assert.deepEqual(events.of('registry-state'), [
      { registry: 'scripted', target: 'greeter', state: 'fresh', detail: 'the registry answered' },
    ]);
    view.close();
  });

  it('follows every change, with a new version and a new array each time', async () => {
    const session = await registry.memory().open(contextOf('greeter'));
    const record = instanceOf('greeter');
    const { view } = follow(session);
    await view.ready(soon());
    const seen: string[] = [];
    view.onChange(() => seen.push(`${view.version}:${view.instances().map(({ state }) => state)}`));

    await session.register(record);
    await session.update({ ...record, state: 'draining' });
    await session.deregister(record.id);
    await eventually(() => assert.equal(view.version, 3));

    assert.deepEqual(seen, ['1:ready', '2:draining', '3:']);
    view.close();
  });

  it('keeps array and version while nothing changes', async () => {
    const session = new ScriptedSession();
    const record = instanceOf('greeter');
    session.instances = [record];
    const { view, clock } = follow(session);
    await view.ready(soon());
    const [instances, { version }] = [view.instances(), view];

    session.tell({ type: 'changed', instance: { ...record } });
    session.tell({ type: 'removed', id: 'greeter-unknown' });
    session.hangUp();
    await eventually(() => assert.equal(clock.timers, 1));
    clock.pass(100);
    await eventually(() => assert.equal(view.state, 'fresh'));

    assert.equal(session.watches, 2);
    assert.equal(view.instances(), instances);
    assert.equal(view.version, version);
    view.close();
  });

  it('keeps the last good state while the watch is lost, says so, and learns what it missed', async () => {
    const session = new ScriptedSession();
    const [left, stayed, came] = [instanceOf('greeter'), instanceOf('greeter'), instanceOf('greeter')];
    session.instances = [left, stayed];
    const { view, events, clock } = follow(session);
    await view.ready(soon());

    session.hangUp();
    await eventually(() => assert.equal(view.state, 'stale'));
    assert.deepEqual(view.instances(), [left, stayed]);
    session.instances = [stayed, came];
    clock.pass(100);
    await eventually(() => assert.deepEqual(view.instances(), [stayed, came]));

    assert.deepEqual(statesOf(events), ['fresh', 'stale', 'fresh']);
    view.close();
  });

  it('tries again ever more slowly, up to five seconds, and swiftly after an answer', async () => {
    const session = new ScriptedSession();
    session.failure = new Error('connection refused, token hunter2');
    const { view, events, clock } = follow(session);

    for (const [n, waitMs] of [100, 200, 400, 800, 1600, 3200, 5000, 5000].entries()) {
      await eventually(() => assert.equal(clock.timers, 1));
      clock.pass(waitMs - 1);
      await turn();
      assert.equal(session.watches, n + 1, `no attempt before ${waitMs} ms`);
      clock.pass(1);
      await eventually(() => assert.equal(session.watches, n + 2));
    }
    assert.equal(view.state, 'down');
    session.failure = undefined;
    await eventually(() => assert.equal(clock.timers, 1));
    clock.pass(5000);
    await view.ready(soon());
    const { watches } = session;
    session.hangUp();
    await eventually(() => assert.equal(clock.timers, 1));
    clock.pass(100);
    await eventually(() => assert.equal(session.watches, watches + 1));

    assert.ok(!JSON.stringify(events.all).includes('hunter2'));
    view.close();
  });

  it('spreads the attempts of many callers', async () => {
    const session = new ScriptedSession();
    session.failure = new Error('down');
    const { view, clock } = follow(session, { random: () => 0 });
    await eventually(() => assert.equal(clock.timers, 1));

    clock.pass(50);

    await eventually(() => assert.equal(session.watches, 2));
    view.close();
  });

  it('takes the word of the registry on its own state, also after a gap', async () => {
    const session = new ScriptedSession();
    const { view, events } = follow(session);
    await view.ready(soon());

    session.tell({ type: 'state', state: 'stale', detail: 'the folder cannot be read' });
    await eventually(() => assert.equal(view.state, 'stale'));
    session.tell({ type: 'snapshot', instances: [] });
    await turn();
    assert.equal(view.state, 'stale');
    session.tell({ type: 'state', state: 'fresh', detail: '' });
    await eventually(() => assert.equal(view.state, 'fresh'));

    assert.deepEqual(statesOf(events), ['fresh', 'stale', 'fresh']);
    view.close();
  });

  it('drops records that are not valid or not of this service, and reports each once', async () => {
    const session = new ScriptedSession();
    const good = instanceOf('greeter');
    session.instances = [
      good,
      { ...instanceOf('greeter', { id: 'greeter-bad' }), weight: -1 },
      instanceOf('billing', { id: 'billing-1' }),
      { id: 'greeter-\u001b[2J' },
      null,
    ];
    const { view, events, clock } = follow(session);
    await view.ready(soon());
    session.hangUp();
    await eventually(() => assert.equal(clock.timers, 1));
    clock.pass(100);
    await eventually(() => assert.equal(session.watches, 2));
    await eventually(() => assert.equal(view.state, 'fresh'));

    assert.deepEqual(view.instances(), [good]);
    const refused = events.of('registry-record-refused').map(({ instance, detail }) => `${instance}: ${detail}`);
    assert.equal(refused.length, 4);
    assert.equal(refused[0], 'greeter-bad: weight: not 0 to 1000');
    assert.equal(refused[1], 'billing-1: it belongs to another service');
    assert.match(refused[2] ?? '', /^\(no valid id\): /);
    view.close();
  });

  it('drops a poisoned endpoint, and loopback when the registry spans machines (T38)', async () => {
    const session = new ScriptedSession();
    const at = (id: string, ...hosts: string[]) =>
      instanceOf('greeter', { id, endpoints: hosts.map((host) => ({ host, port: 443 })) });
    session.instances = [
      at('greeter-1', '169.254.169.254'),
      at('greeter-2', '10.0.0.5', '127.0.0.1'),
      at('greeter-3', '10.0.0.6'),
    ];
    const { view, events } = follow(session, { endpoints: { allowLoopback: false } });

    await view.ready(soon());

    assert.deepEqual(
      view.instances().map(({ id }) => id),
      ['greeter-3'],
    );
    assert.deepEqual(
      events.of('registry-record-refused').map(({ instance, detail }) => `${instance}: ${detail}`),
      [
        'greeter-1: its endpoint is a link-local address, where clouds serve instance credentials',
        'greeter-2: its endpoint is a loopback address',
      ],
    );
    view.close();
  });

  it('forgets an instance whose record turns bad, and takes it back when it is mended', async () => {
    const session = new ScriptedSession();
    const record = instanceOf('greeter');
    session.instances = [record];
    const { view } = follow(session);
    await view.ready(soon());

    session.tell({ type: 'changed', instance: { ...record, weight: -1 } });
    await eventually(() => assert.deepEqual(view.instances(), []));
    session.tell({ type: 'changed', instance: record });

    await eventually(() => assert.deepEqual(view.instances(), [record]));
    view.close();
  });

  it('holds no more than 10,000 instances of a registry gone mad', async () => {
    const session = new ScriptedSession();
    session.instances = Array.from({ length: 10_002 }, () => instanceOf('greeter'));
    const { view, events } = follow(session);

    await view.ready(soon());

    assert.equal(view.instances().length, 10_000);
    assert.match(events.of('registry-record-refused')[0]?.detail ?? '', /more than 10000 instances/);
    view.close();
  });

  it('waits for the first answer no longer than the deadline', async () => {
    const session = new ScriptedSession();
    session.failure = new Error('down');
    const { view } = follow(session);

    await assert.rejects(view.ready(Date.now() + 20), { status: 'DEADLINE_EXCEEDED' });
    view.close();
  });

  it('stops waiting when the signal aborts, before or after', async () => {
    const session = new ScriptedSession();
    session.failure = new Error('down');
    const { view } = follow(session);
    const abort = new AbortController();

    const waiting = view.ready(Infinity, abort.signal);
    abort.abort();

    await assert.rejects(waiting, { status: 'CANCELLED' });
    await assert.rejects(view.ready(Infinity, abort.signal), { status: 'CANCELLED' });
    view.close();
  });

  it('ends its watch, its timer and whoever waits when it is closed, and keeps what it knew', async () => {
    const session = new ScriptedSession();
    session.instances = [instanceOf('greeter')];
    const { view } = follow(session);
    await view.ready(soon());
    const broken = new ScriptedSession();
    broken.failure = new Error('down');
    const { view: waitingView, clock } = follow(broken);
    await eventually(() => assert.equal(clock.timers, 1));
    const waiting = waitingView.ready(Infinity);

    view.close();
    view.close();
    waitingView.close();

    await assert.rejects(waiting, { status: 'UNAVAILABLE' });
    await assert.rejects(waitingView.ready(Infinity), { status: 'UNAVAILABLE' });
    assert.equal(session.feeds.size, 0);
    assert.equal(clock.timers, 0);
    assert.equal(view.instances().length, 1);
  });

  it('tells the others when one listener throws, and reports it', async () => {
    const session = await registry.memory().open(contextOf('greeter'));
    const { view, events } = follow(session);
    await view.ready(soon());
    let told = 0;
    view.onChange(() => {
      throw new RangeError('hunter2');
    });
    const unsubscribe = view.onChange(() => {
      told += 1;
    });

    await session.register(instanceOf('greeter'));
    await eventually(() => assert.equal(told, 1));
    unsubscribe();
    await session.register(instanceOf('greeter'));
    await eventually(() => assert.equal(view.instances().length, 2));

    assert.equal(told, 1);
    assert.deepEqual(events.of('listener-failed')[0], { event: 'registry view changed', detail: 'RangeError' });
    view.close();
  });
});
