import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { InstanceRecord, RegistryEvent, RegistrySession } from '@sallyport/core';

/** The globals of a test runner: mocha and vitest have them, node:test exports them. */
export interface TestFramework {
  describe(title: string, body: () => void): unknown;
  it(title: string, body: () => Promise<void>): unknown;
  beforeEach(body: () => Promise<void>): unknown;
  afterEach(body: () => Promise<void>): unknown;
}

/** One registry, fresh for one test. */
export interface RegistryHarness {
  /** Opens a session on the registry for a participant of that name. The suite closes it. */
  open(participant: string): Promise<RegistrySession>;
  /** Makes the participant fall silent, as if its process had been killed: no heartbeat any more, and no goodbye. */
  kill?(session: RegistrySession): Promise<void>;
  cleanup(): Promise<void>;
}

export interface RegistryConformanceOptions {
  /** For the titles. */
  readonly name: string;
  create(): Promise<RegistryHarness>;
  /** After this time without heartbeat an instance is gone. Left out: participants cannot be killed (one process). */
  readonly ttlMs?: number;
  /** How long a change may take to arrive. Default 5,000. */
  readonly deadlineMs?: number;
}

/** What expiry may take on top of the TTL, ms. */
const EXPIRY_SLACK_MS = 5000;
const CHANGES = 2000;

const Code = { INVALID_ARGUMENT: 3, NOT_FOUND: 5, ALREADY_EXISTS: 6, FAILED_PRECONDITION: 9 } as const;

/**
 * Defines the tests that every registry passes, unchanged:
 *
 *     registryConformance({ name: 'mine', create: async () => harness }, { describe, it, beforeEach, afterEach });
 */
export function registryConformance(options: RegistryConformanceOptions, framework: TestFramework): void {
  const { describe, it, beforeEach, afterEach } = framework;
  const { ttlMs, deadlineMs = 5000 } = options;

  describe(`${options.name}: conformance of the registry`, () => {
    let harness: RegistryHarness;
    let sessions: RegistrySession[] = [];
    let service: string;

    beforeEach(async () => {
      harness = await options.create();
      // A name of its own: the registry may be a server that other tests use too.
      service = `conformance-${randomUUID().slice(0, 8)}`;
    });

    afterEach(async () => {
      await Promise.all(sessions.map((session) => session.close()));
      sessions = [];
      await harness.cleanup();
    });

    async function open(participant: string): Promise<RegistrySession> {
      const session = await harness.open(participant);
      sessions.push(session);
      return session;
    }

    const soon = (assertion: () => unknown, withinMs = deadlineMs) => eventually(assertion, withinMs);

    it('lists a registered instance with every field as it was', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const record = recordOf(service, {
        version: '1.2.3-rc.1+build.5',
        endpoints: [
          { host: '192.0.2.1', port: 1 },
          { host: '2001:db8::1', port: 65_535 },
          { host: 'a.example', port: 443 },
        ],
        metadata: { greeting: 'Grüß Gott, 世界 🚪', quotes: `"'\\ \n\t`, empty: '', A_1: 'a=b&c;d' },
        weight: 0,
        zone: 'eu-west-1a',
        state: 'starting',
        contracts: ['demo.v1.Greeter', 'demo.v2.Greeter'],
      });

      await owner.register(record);

      await soon(async () => assert.deepEqual(plain(await reader.list(service)), [record]));
    });

    it('shows an instance to a watcher with every field as it was', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const record = recordOf(service, { metadata: { greeting: 'Grüß Gott, 世界 🚪' } });
      const observer = observe(reader, service);
      await soon(() => observer.begun());

      await owner.register(record);

      await soon(() => assert.deepEqual(observer.known(), [record]));
    });

    it('begins a watch with a snapshot of what is there', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const records = [recordOf(service), recordOf(service)].sort(byId);
      for (const record of records) await owner.register(record);
      await soon(async () => assert.equal((await reader.list(service)).length, 2));

      const observer = observe(reader, service);
      await soon(() => observer.begun());

      assert.equal(observer.events[0]?.type, 'snapshot');
      assert.deepEqual(observer.known(), records);
    });

    it('begins a watch of an unknown service with an empty snapshot', async () => {
      const observer = observe(await open('reader'), service);

      await soon(() => observer.begun());

      assert.deepEqual(observer.events[0], { type: 'snapshot', instances: [] });
    });

    it('tells a watcher what was added, changed and removed, in that order', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const record = recordOf(service);
      const observer = observe(reader, service);
      await soon(() => observer.begun());

      await owner.register(record);
      await soon(() => assert.equal(observer.known().length, 1));
      await owner.update({ ...record, state: 'draining' });
      await soon(() => assert.equal(observer.known()[0]?.state, 'draining'));
      await owner.deregister(record.id);
      await soon(() => assert.equal(observer.known().length, 0));

      assert.deepEqual(observer.types(), ['snapshot', 'added', 'changed', 'removed']);
    });

    it('shows two watchers the same', async () => {
      const owner = await open('owner');
      const observers = [observe(await open('one'), service), observe(await open('two'), service)];
      for (const observer of observers) await soon(() => observer.begun());

      const records = [recordOf(service), recordOf(service), recordOf(service)].sort(byId);
      for (const record of records) await owner.register(record);
      await owner.deregister(idOf(records, 1));

      const left = records.toSpliced(1, 1);
      for (const observer of observers) await soon(() => assert.deepEqual(observer.known(), left));
    });

    it('keeps services apart', async () => {
      const owner = await open('owner');
      const other = `${service}-other`;
      const record = recordOf(other);
      const observer = observe(owner, service);
      await soon(() => observer.begun());

      await owner.register(record);

      await soon(async () => assert.equal((await owner.list(other)).length, 1));
      assert.deepEqual(await owner.list(service), []);
      assert.deepEqual(observer.known(), []);
    });

    it('lists nothing for an unknown service', async () => {
      const reader = await open('reader');

      assert.deepEqual(await reader.list(service), []);
    });

    it('refuses what is no service name', async () => {
      const reader = await open('reader');

      for (const name of ['', '../etc', 'a/b', 'Upper', '-a', 'a'.repeat(64)]) {
        await assert.rejects(reader.list(name), { code: Code.INVALID_ARGUMENT });
        assert.throws(() => reader.watch(name), { code: Code.INVALID_ARGUMENT });
      }
    });

    it('lists 200 instances, ordered by id', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const records = Array.from({ length: 200 }, () => recordOf(service)).sort(byId);

      await Promise.all(records.map((record) => owner.register(record)));

      await soon(async () => assert.deepEqual(plain(await reader.list(service)), records));
    });

    it('refuses a record that is not valid, and publishes nothing', async () => {
      const owner = await open('owner');
      const record = recordOf(service);

      await assert.rejects(owner.register({ ...record, version: 'latest' }), { code: Code.INVALID_ARGUMENT });
      await assert.rejects(owner.register({ ...record, endpoints: [] }), { code: Code.INVALID_ARGUMENT });
      await assert.rejects(owner.register({ ...record, metadata: { big: 'x'.repeat(513) } }), {
        code: Code.INVALID_ARGUMENT,
      });

      assert.deepEqual(await owner.list(service), []);
    });

    it('keeps its own copy of the record', async () => {
      const owner = await open('owner');
      const metadata = { color: 'blue' };
      const record = recordOf(service, { metadata });

      await owner.register(record);
      metadata.color = 'red';

      await soon(async () => assert.deepEqual((await owner.list(service))[0]?.metadata, { color: 'blue' }));
    });

    it('refuses to register an id that another participant owns', async () => {
      const [owner, thief] = [await open('owner'), await open('thief')];
      const record = recordOf(service);
      await owner.register(record);

      await assert.rejects(thief.register({ ...record, zone: 'stolen' }), { code: Code.ALREADY_EXISTS });

      await soon(async () => assert.deepEqual(plain(await thief.list(service)), [record]));
    });

    it('refuses to update an instance of another participant', async () => {
      const [owner, thief] = [await open('owner'), await open('thief')];
      const record = recordOf(service);
      await owner.register(record);

      await assert.rejects(thief.update({ ...record, zone: 'stolen' }), { code: Code.NOT_FOUND });

      await soon(async () => assert.deepEqual(plain(await thief.list(service)), [record]));
    });

    it('withdraws no instance of another participant', async () => {
      const [owner, thief] = [await open('owner'), await open('thief')];
      const record = recordOf(service);
      await owner.register(record);

      await thief.deregister(record.id);
      await thief.close();

      await soon(async () => assert.deepEqual(plain(await owner.list(service)), [record]));
    });

    it('refuses to update what was never registered', async () => {
      const owner = await open('owner');

      await assert.rejects(owner.update(recordOf(service)), { code: Code.NOT_FOUND });
    });

    it('deregisters twice without complaint', async () => {
      const owner = await open('owner');
      const record = recordOf(service);
      await owner.register(record);

      await owner.deregister(record.id);
      await owner.deregister(record.id);

      await soon(async () => assert.deepEqual(await owner.list(service), []));
    });

    it('registers an id again after its own deregistration', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const record = recordOf(service);
      await owner.register(record);
      await owner.deregister(record.id);

      await owner.register({ ...record, zone: 'b' });

      await soon(async () => assert.deepEqual(plain(await reader.list(service)), [{ ...record, zone: 'b' }]));
    });

    it(`shows a slow watcher the end state of ${CHANGES} changes`, async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const records = Array.from({ length: 20 }, () => recordOf(service)).sort(byId);
      const iterator = reader.watch(service)[Symbol.asyncIterator]();
      await iterator.next();

      for (const record of records) await owner.register(record);
      for (let n = records.length; n < CHANGES; n += records.length) {
        await Promise.all(records.map((record) => owner.update({ ...record, metadata: { n: String(n) } })));
      }
      await owner.deregister(idOf(records, 0));
      const last = String(CHANGES - records.length);
      const end = records.slice(1).map((record) => ({ ...record, metadata: { n: last } }));

      const known = new Map<string, InstanceRecord>();
      await within(deadlineMs, async () => {
        while (JSON.stringify(sorted(known)) !== JSON.stringify(end)) {
          const { value, done } = await iterator.next();
          assert.ok(!done, 'the watch ended before it showed the end state');
          apply(known, value);
        }
      });
      await iterator.return?.();
    });

    it('ends a watch when its signal aborts, and only that one', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      const abort = new AbortController();
      const [aborted, other] = [observe(reader, service, abort.signal), observe(reader, service)];
      await soon(() => aborted.begun());

      abort.abort();
      await within(deadlineMs, () => aborted.ended);
      await owner.register(recordOf(service));

      await soon(() => assert.equal(other.known().length, 1));
      assert.deepEqual(aborted.known(), []);
    });

    it('gives nothing to a watcher whose signal has aborted already', async () => {
      const observer = observe(await open('reader'), service, AbortSignal.abort());

      await within(deadlineMs, () => observer.ended);

      assert.deepEqual(observer.events, []);
    });

    it('withdraws its instances and ends its watches when it closes', async () => {
      const [owner, reader] = [await open('owner'), await open('reader')];
      await owner.register(recordOf(service));
      const [own, other] = [observe(owner, service), observe(reader, service)];
      await soon(() => assert.equal(own.known().length + other.known().length, 2));

      await owner.close();
      await within(deadlineMs, () => own.ended);
      const seen = own.events.length;

      await soon(() => assert.deepEqual(other.known(), []));
      assert.equal(own.events.length, seen);
    });

    it('closes twice without complaint, and then refuses work', async () => {
      const owner = await open('owner');

      await owner.close();
      await owner.close();

      await assert.rejects(owner.register(recordOf(service)), { code: Code.FAILED_PRECONDITION });
      await assert.rejects(owner.list(service), { code: Code.FAILED_PRECONDITION });
      await within(deadlineMs, () => observe(owner, service).ended);
    });

    it('is fresh while it is in contact', async () => {
      const owner = await open('owner');
      await owner.register(recordOf(service));

      assert.equal(owner.state, 'fresh');
    });

    if (ttlMs === undefined) return;

    it('drops a killed participant when its TTL has passed, and keeps the living', async () => {
      const [victim, survivor, reader] = [await open('victim'), await open('survivor'), await open('reader')];
      const [lost, kept] = [recordOf(service), recordOf(service)];
      await victim.register(lost);
      await survivor.register(kept);
      const observer = observe(reader, service);
      await soon(() => assert.equal(observer.known().length, 2));
      assert.ok(harness.kill, 'a harness with a TTL can kill');

      await harness.kill(victim);

      await soon(() => assert.deepEqual(observer.known(), [kept]), ttlMs + EXPIRY_SLACK_MS);
      assert.deepEqual(plain(await reader.list(service)), [kept]);
    });
  });
}

function recordOf(service: string, fields: Partial<InstanceRecord> = {}): InstanceRecord {
  return {
    id: `${service}-${randomUUID()}`,
    service,
    version: '1.0.0',
    endpoints: [{ host: '127.0.0.1', port: 4433 }],
    identity: `spiffe://test.example/svc/${service}`,
    metadata: {},
    weight: 100,
    zone: '',
    state: 'ready',
    contracts: ['demo.v1.Greeter'],
    ...fields,
  };
}

interface Observer {
  readonly events: readonly RegistryEvent[];
  /** Throws until the first snapshot has come. */
  begun(): void;
  /** What a reader knows that has applied every event, ordered by id. */
  known(): InstanceRecord[];
  /** Types of the events, without changes of state. */
  types(): string[];
  readonly ended: Promise<void>;
}

function observe(session: RegistrySession, service: string, signal?: AbortSignal): Observer {
  const events: RegistryEvent[] = [];
  const known = new Map<string, InstanceRecord>();
  async function read() {
    for await (const event of session.watch(service, signal ? { signal } : {})) {
      events.push(event);
      apply(known, event);
    }
  }
  return {
    events,
    begun: () => assert.ok(events.length > 0, 'the watch gave no first event'),
    known: () => sorted(known),
    types: () => events.map((event) => event.type).filter((type) => type !== 'state'),
    ended: read(),
  };
}

function apply(known: Map<string, InstanceRecord>, event: RegistryEvent): void {
  switch (event.type) {
    case 'snapshot':
      known.clear();
      for (const instance of event.instances) known.set(instance.id, plainRecord(instance));
      break;
    case 'added':
    case 'changed':
      known.set(event.instance.id, plainRecord(event.instance));
      break;
    case 'removed':
      known.delete(event.id);
      break;
    case 'state':
  }
}

function sorted(known: ReadonlyMap<string, InstanceRecord>): InstanceRecord[] {
  return [...known.values()].sort(byId);
}

function byId(a: InstanceRecord, b: InstanceRecord): number {
  return a.id < b.id ? -1 : 1;
}

function idOf(records: readonly InstanceRecord[], index: number): string {
  return records[index]?.id ?? '';
}

/** The fields in the order of `recordOf`, so that records compare as text too. */
function plainRecord(record: InstanceRecord): InstanceRecord {
  return recordOf(record.service, record);
}

function plain(records: readonly InstanceRecord[]): InstanceRecord[] {
  return records.map(plainRecord);
}

/** Asks again until the assertion holds; at the deadline its last failure is the failure of the test. */
async function eventually(assertion: () => unknown, deadlineMs: number): Promise<void> {
  const deadlineAt = Date.now() + deadlineMs;
  for (;;) {
    try {
      await assertion();
      return;
    } catch (error) {
      if (Date.now() > deadlineAt) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function within<T>(deadlineMs: number, task: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`this took longer than ${deadlineMs} ms`)), deadlineMs);
  });
  try {
    return await Promise.race([task(), late]);
  } finally {
    clearTimeout(timer);
  }
}
