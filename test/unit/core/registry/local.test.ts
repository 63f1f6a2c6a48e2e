import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { RegistryContext, RegistrySession } from '@sallyport/core';
import { type InstanceRecord, type LocalRegistryOptions, type RegistryEvent, registry } from '@sallyport/core';
import { startNode } from '../../../support/child.js';
import { eventually } from '../../../support/eventually.js';
import { instanceOf } from '../../../support/instance.js';
import { contextOf, ManualClock, RecordedEvents } from '../../../support/registry-context.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

const PARTICIPANT = fileURLToPath(new URL('../../../support/local-participant.js', import.meta.url));
const TTL_MS = 1000;
const POLL_MS = 100;
const isRoot = process.getuid?.() === 0;

describe('local registry', () => {
  let folder: TemporaryFolder;
  let directory: string;
  let sessions: RegistrySession[];

  beforeEach(() => {
    folder = temporaryFolder();
    directory = join(folder.path, 'registry');
    sessions = [];
  });

  afterEach(async () => {
    await Promise.all(sessions.map((session) => session.close()));
    folder[Symbol.dispose]();
  });

  async function open(context: Partial<RegistryContext> = {}, options: Partial<LocalRegistryOptions> = {}) {
    const shared = registry.local({ directory, ttlMs: TTL_MS, pollMs: POLL_MS, ...options });
    const session = await shared.open(contextOf('greeter', context));
    sessions.push(session);
    return session;
  }

  function fileOf(id: string): string {
    return join(directory, 'greeter', `${id}.json`);
  }

  /** A file as a participant writes it; the record can be tampered with. */
  async function fileContent(tamper: (record: Record<string, unknown>) => void = () => undefined): Promise<string> {
    const record = instanceOf('greeter');
    const session = await open();
    await session.register(record);
    const file = JSON.parse(readFileSync(fileOf(record.id), 'utf8'));
    await session.close();
    tamper(file.record);
    return JSON.stringify(file);
  }

  const idsOf = (records: readonly InstanceRecord[]) => records.map(({ id }) => id);
  const idsIn = async (session: RegistrySession) => idsOf(await session.list('greeter'));

  describe('options', () => {
    const refused: readonly [title: string, options: object, id: string, path: string][] = [
      ['no folder', {}, 'option-missing', 'registry.local.directory'],
      ['an empty path', { directory: '' }, 'option-invalid', 'registry.local.directory'],
      ['a path that is none', { directory: 'a\0b' }, 'option-invalid', 'registry.local.directory'],
      ['a TTL under a second', { directory: 'x', ttlMs: 999 }, 'option-invalid', 'registry.local.ttlMs'],
      ['an endless TTL', { directory: 'x', ttlMs: Infinity }, 'limit-unbounded', 'registry.local.ttlMs'],
      [
        'heartbeats too rare for the TTL',
        { directory: 'x', ttlMs: 1000, heartbeatMs: 501 },
        'option-invalid',
        'registry.local.heartbeatMs',
      ],
      ['no poll', { directory: 'x', pollMs: 0 }, 'limit-unbounded', 'registry.local.pollMs'],
      ['an unknown option', { directory: 'x', ttl: 5 }, 'option-unknown', 'registry.local.ttl'],
    ];
    for (const [title, options, id, path] of refused) {
      it(`refuses ${title}, and does not open`, async () => {
        const mistaken = registry.local(options as LocalRegistryOptions);

        const violations = await mistaken.check();

        assert.deepEqual(
          violations.map((v) => [v.id, v.path]),
          [[id, path]],
        );
        await assert.rejects(mistaken.open(contextOf('greeter')), { name: 'InsecureConfigurationError' });
      });
    }
  });

  describe('its folder', () => {
    const check = () => registry.local({ directory }).check();

    async function refusesAsExposed(problem: RegExp): Promise<void> {
      const violations = await check();
      assert.deepEqual(
        violations.map(({ id, path }) => [id, path]),
        [['registry-directory-exposed', 'registry.local.directory']],
      );
      assert.match(violations[0]?.problem ?? '', problem);
      await assert.rejects(open(), { name: 'InsecureConfigurationError' });
    }

    it('is created on opening, not on checking, closed to others like the files in it', async () => {
      directory = join(directory, 'not', 'yet', 'there');
      assert.deepEqual(await check(), []);
      assert.ok(!existsSync(directory));

      const session = await open();
      const record = instanceOf('greeter');
      await session.register(record);

      const mode = (path: string) => statSync(path).mode & 0o777;
      assert.equal(mode(directory), 0o700);
      assert.equal(mode(join(directory, 'greeter')), 0o700);
      assert.equal(mode(fileOf(record.id)), 0o600);
    });

    for (const mode of [0o755, 0o770, 0o701, 0o777]) {
      it(`is refused with mode ${mode.toString(8)}`, async () => {
        mkdirSync(directory);
        chmodSync(directory, mode);

        await refusesAsExposed(new RegExp(`its mode is ${mode.toString(8)}`));
      });
    }

    it('is refused when it is a symbolic link, though to a good folder', async () => {
      mkdirSync(join(folder.path, 'elsewhere'), { mode: 0o700 });
      symlinkSync(join(folder.path, 'elsewhere'), directory);

      await refusesAsExposed(/symbolic link/);
    });

    it('is refused when it is a file', async () => {
      writeFileSync(directory, '');

      await refusesAsExposed(/not a folder/);
    });

    it('is refused when it belongs to another user', async function () {
      if (!isRoot) this.skip();
      mkdirSync(directory, { mode: 0o700 });
      chownSync(directory, 12_345, 12_345);

      await refusesAsExposed(/another user/);
    });

    it('is accepted when it is private and there already', async () => {
      mkdirSync(directory, { mode: 0o700 });

      assert.deepEqual(await check(), []);
    });
  });

  describe('processes', () => {
    it('lose a killed one within TTL and poll', async () => {
      const session = await open();
      await using child = startNode([PARTICIPANT, directory, 'greeter-child', 'stay']);
      await child.output(/registered/);
      await eventually(async () => assert.deepEqual(await idsIn(session), ['greeter-child']));
      const removed = nextOf(session, 'removed');

      await child.stop('SIGKILL');
      const killedAt = Date.now();

      assert.deepEqual(await removed, { type: 'removed', id: 'greeter-child' });
      const tookMs = Date.now() - killedAt;
      assert.ok(tookMs < TTL_MS + POLL_MS + 500, `${tookMs} ms`);
      assert.deepEqual(await idsIn(session), []);
    });

    it('keep a living one for longer than its TTL', async () => {
      const session = await open();
      await using child = startNode([PARTICIPANT, directory, 'greeter-child', 'stay']);
      await child.output(/registered/);
      const events = collect(session);

      await sleep(2 * TTL_MS);

      assert.deepEqual(await idsIn(session), ['greeter-child']);
      assert.deepEqual(
        events.map(({ type }) => type).filter((type) => type === 'removed'),
        [],
      );
    });

    it('lose one that says goodbye at once', async () => {
      const session = await open();
      await using child = startNode([PARTICIPANT, directory, 'greeter-child', 'stay']);
      await child.output(/registered/);
      const watch = session.watch('greeter')[Symbol.asyncIterator]();
      await watch.next(); // a snapshot that was taken later would not hold it any more

      const exit = await child.stop('SIGTERM');

      assert.equal(exit.code, 0);
      assert.deepEqual((await watch.next()).value, { type: 'removed', id: 'greeter-child' });
      assert.deepEqual(readdirSync(join(directory, 'greeter')), []);
    });

    it('are not kept alive by an open session and its watch', async () => {
      await using child = startNode([PARTICIPANT, directory, 'greeter-child', 'leave'], { timeoutMs: 5000 });

      const exit = await child.exited;

      assert.deepEqual([exit.code, exit.signal, exit.stderr], [0, null, '']);
    });
  });

  describe('many writers', () => {
    it('leave all watchers with the same end state', async () => {
      const writers = await Promise.all(Array.from({ length: 10 }, () => open()));
      const watchers = await Promise.all(Array.from({ length: 3 }, async () => knownBy(await open())));
      const records = writers.map(() => instanceOf('greeter'));

      await Promise.all(
        writers.map(async (writer, i) => {
          const record = records[i] ?? instanceOf('greeter');
          await writer.register(record);
          for (let n = 1; n <= 100; n++) await writer.update({ ...record, metadata: { n: String(n) } });
          if (i % 2 === 1) await writer.deregister(record.id);
        }),
      );

      const end = records.filter((_, i) => i % 2 === 0).map((record) => ({ ...record, metadata: { n: '100' } }));
      for (const known of watchers) {
        await eventually(() => assert.deepEqual(JSON.parse(JSON.stringify([...known.values()])), end));
      }
    });

    it('leave no drafts behind', async () => {
      const writer = await open();
      const thief = await open();
      const record = instanceOf('greeter');
      await writer.register(record);
      for (let n = 0; n < 20; n++) await writer.update({ ...record, zone: `z${n}` });
      await assert.rejects(thief.register(record), { status: 'ALREADY_EXISTS' });

      assert.deepEqual(readdirSync(join(directory, 'greeter')), [`${record.id}.json`]);
    });
  });

  describe('files that are not what they should be', () => {
    const hostile: readonly [title: string, detail: RegExp, plant: (content: string) => void][] = [
      ['of another name', /name of its instance/, (content) => plant('README.txt', content)],
      ['under the name of another instance', /name of its instance/, (content) => plant('greeter-x.json', content)],
      ['with no JSON', /not an instance file/, () => plant('greeter-x.json', '{"schema":1,')],
      ['with other JSON', /not an instance file/, () => plant('greeter-x.json', '[]')],
      ['of 10 MB', /longer than/, () => plant('greeter-x.json', 'x'.repeat(10_000_000))],
      ['that others can read', /others can touch it/, (content) => chmodSync(plant('greeter-x.json', content), 0o644)],
      ['that are folders', /not a regular file/, () => mkdirSync(fileOf('greeter-x'), { mode: 0o700 })],
      [
        'that are symbolic links to good ones',
        /symbolic link/,
        (content) => {
          writeFileSync(join(folder.path, 'good.json'), content, { mode: 0o600 });
          symlinkSync(join(folder.path, 'good.json'), fileOf('greeter-x'));
        },
      ],
      [
        'that are pipes, which nobody writes',
        /not a regular file/,
        () => execFileSync('mkfifo', ['-m', '600', fileOf('greeter-x')]),
      ],
    ];

    function plant(name: string, content: string): string {
      const path = join(directory, 'greeter', name);
      writeFileSync(path, content, { mode: 0o600 });
      return path;
    }

    for (const [title, detail, put] of hostile) {
      it(`are passed over and reported once: ${title}`, async () => {
        const content = await fileContent();
        const events = new RecordedEvents();
        const session = await open({ events });
        const record = instanceOf('greeter');
        await session.register(record);

        put(content);
        for (let n = 0; n < 3; n++) assert.deepEqual(await idsIn(session), [record.id]);

        const refused = events.of('registry-record-refused');
        assert.equal(refused.length, 1);
        assert.match(refused[0]?.detail ?? '', detail);
      });
    }

    it('are passed over when they belong to another user', async function () {
      if (!isRoot) this.skip();
      const content = await fileContent();
      const { id } = JSON.parse(content).record;
      const events = new RecordedEvents();
      const session = await open({ events });
      chownSync(plant(`${id}.json`, content), 12_345, 12_345);

      assert.deepEqual(await idsIn(session), []);
      assert.match(events.of('registry-record-refused')[0]?.detail ?? '', /another user/);
    });

    it('are passed over when their record is not valid, and name the field', async () => {
      const content = await fileContent((record) => {
        record.id = 'greeter-x';
        record.endpoints = [{ host: '0.0.0.0', port: 1 }];
      });
      const events = new RecordedEvents();
      const session = await open({ events });
      plant('greeter-x.json', content);

      assert.deepEqual(await idsIn(session), []);
      assert.deepEqual(events.of('registry-record-refused'), [
        {
          target: 'greeter',
          instance: '"greeter-x.json"',
          detail: 'endpoints: the host is a wildcard, nobody can connect to it',
        },
      ]);
    });

    it('are reported again when they have changed', async () => {
      const events = new RecordedEvents();
      const session = await open({ events });
      await session.register(instanceOf('greeter'));
      const path = plant('greeter-x.json', 'a');
      await session.list('greeter');

      writeFileSync(path, 'ab');
      await session.list('greeter');

      assert.equal(events.of('registry-record-refused').length, 2);
    });

    it('never print what a file name holds', async () => {
      const events = new RecordedEvents();
      const session = await open({ events });
      await session.register(instanceOf('greeter'));
      plant('\u001b[2J\n.json', '');

      await session.list('greeter');

      assert.equal(events.of('registry-record-refused')[0]?.instance, '"\\u001b[2J\\n.json"');
    });

    it('become visible when a half-written one is completed', async () => {
      const content = await fileContent();
      const { id } = JSON.parse(content).record;
      const session = await open();
      const known = knownBy(session);
      const path = plant(`${id}.json`, content.slice(0, content.length / 2));
      assert.deepEqual(await idsIn(session), []);

      writeFileSync(path, content);

      assert.deepEqual(await idsIn(session), [id]);
      await eventually(() => assert.deepEqual([...known.keys()], [id]));
    });

    it('do not take a known instance away before its TTL', async () => {
      const [owner, reader] = [await open({ clock: new ManualClock() }), await open({ clock: new ManualClock() })];
      const record = instanceOf('greeter');
      await owner.register(record);
      const known = knownBy(reader);
      await eventually(() => assert.equal(known.size, 1));

      writeFileSync(fileOf(record.id), 'garbage');
      await reader.list('greeter');

      assert.equal(known.size, 1);
    });
  });

  describe('a folder that is lost', () => {
    it('is written again while watchers keep what they know', async () => {
      const [owner, reader] = [await open(), await open()];
      const [stays, leaves] = [instanceOf('greeter'), instanceOf('greeter')];
      await owner.register(stays);
      await owner.register(leaves);
      const events = collect(reader);
      await eventually(() => assert.equal(events.length > 0, true));

      renameSync(directory, join(folder.path, 'gone'));
      await eventually(() => assert.ok(existsSync(fileOf(stays.id)) && existsSync(fileOf(leaves.id))));
      await sleep(2 * POLL_MS);
      assert.deepEqual(changesIn(events), []);
      await owner.deregister(leaves.id);

      await eventually(() => assert.deepEqual(changesIn(events), [{ type: 'removed', id: leaves.id }]));
      assert.deepEqual(await idsIn(reader), [stays.id]);
    });

    it('expires those who do not come back', async () => {
      const [owner, reader] = [await open({ clock: new ManualClock() }), await open()];
      await owner.register(instanceOf('greeter'));
      // The owner's clock stands still, and the file shows it.
      await touch(join(directory, 'greeter'));
      const known = knownBy(reader);
      await eventually(() => assert.equal(known.size, 1));

      renameSync(directory, join(folder.path, 'gone'));
      await sleep(2 * POLL_MS);
      assert.equal(known.size, 1);

      await eventually(() => assert.equal(known.size, 0));
    });

    it('leaves watchers with the last good state while others can enter it', async () => {
      const [owner, reader] = [await open(), await open()];
      await owner.register(instanceOf('greeter'));
      const events = collect(reader);
      await eventually(() => assert.equal(events.length, 1));

      chmodSync(join(directory, 'greeter'), 0o777);
      await eventually(() => assert.deepEqual(statesIn(events), ['stale']));
      assert.equal(reader.state, 'stale');
      assert.deepEqual(changesIn(events), []);
      chmodSync(join(directory, 'greeter'), 0o700);

      await eventually(() => assert.deepEqual(statesIn(events), ['stale', 'fresh']));
      assert.equal(reader.state, 'fresh');
    });

    it('makes a session down that never saw it', async () => {
      const reader = await open();
      mkdirSync(join(directory, 'greeter'));
      chmodSync(join(directory, 'greeter'), 0o777);
      const events = collect(reader);

      await eventually(() => assert.equal(reader.state, 'down'));
      assert.equal(events.length, 0);
      await assert.rejects(reader.register(instanceOf('greeter')), { status: 'UNAVAILABLE' });
      chmodSync(join(directory, 'greeter'), 0o700);

      await eventually(() => assert.equal(events[0]?.type, 'snapshot'));
      assert.equal(reader.state, 'fresh');
    });

    it('is reported by an owner that cannot write its heartbeats, once, and so is the recovery', async () => {
      const events = new RecordedEvents();
      const owner = await open({ events });
      await owner.register(instanceOf('greeter'));
      const states = () => events.of('registry-state').map(({ target, state }) => `${target} ${state}`);

      renameSync(directory, join(folder.path, 'gone'));
      writeFileSync(directory, 'in the way');
      await eventually(() => assert.deepEqual(states(), ['greeter stale']));
      assert.equal(owner.state, 'stale');
      await sleep(TTL_MS / 2);
      unlinkSync(directory);

      await eventually(() => assert.deepEqual(states(), ['greeter stale', 'greeter fresh']));
      assert.equal((await owner.list('greeter')).length, 1);
    });
  });

  describe('ownership', () => {
    it('writes a file again that somebody deleted', async () => {
      const owner = await open();
      const record = instanceOf('greeter');
      await owner.register(record);

      unlinkSync(fileOf(record.id));

      await eventually(() => assert.ok(existsSync(fileOf(record.id))));
    });

    it('passes to another when the record has expired, and the former owner takes nothing back', async () => {
      const [late, now] = [new ManualClock(), new ManualClock()];
      const events = new RecordedEvents();
      const former = await open({ clock: late, events });
      const record = instanceOf('greeter');
      await former.register({ ...record, zone: 'former' });

      now.jump(TTL_MS + 1);
      const heir = await open({ clock: now });
      await heir.register({ ...record, zone: 'heir' });
      late.pass(TTL_MS / 2);
      await eventually(() => assert.equal(events.of('registry-state').length, 1));
      await former.deregister(record.id);

      assert.deepEqual(
        (await heir.list('greeter')).map(({ zone }) => zone),
        ['heir'],
      );
      assert.match(events.of('registry-state')[0]?.detail ?? '', /another participant has registered/);
    });

    it('does not pass to another before the record has expired', async () => {
      const [owners, thiefs] = [new ManualClock(), new ManualClock()];
      const record = instanceOf('greeter');
      await (await open({ clock: owners })).register(record);

      thiefs.jump(TTL_MS);
      const thief = await open({ clock: thiefs });

      await assert.rejects(thief.register(record), { status: 'ALREADY_EXISTS' });
    });

    it('goes to one of two heirs', async () => {
      const [late, now] = [new ManualClock(), new ManualClock()];
      const record = instanceOf('greeter');
      await (await open({ clock: late })).register(record);
      now.jump(TTL_MS + 1);
      const heirs = await Promise.all(Array.from({ length: 5 }, () => open({ clock: now })));

      const outcomes = await Promise.allSettled(heirs.map((heir, i) => heir.register({ ...record, zone: `${i}` })));

      const won = outcomes.flatMap(({ status }, i) => (status === 'fulfilled' ? [`${i}`] : []));
      const [reader = await open()] = heirs;
      assert.deepEqual(
        (await reader.list('greeter')).map(({ zone }) => zone),
        won,
      );
      assert.equal(won.length, 1);
    });

    it('replaces garbage under the own name only when it is old', async () => {
      const clock = new ManualClock();
      const owner = await open({ clock });
      const record = instanceOf('greeter');
      await owner.register(instanceOf('greeter'));
      writeFileSync(fileOf(record.id), 'garbage', { mode: 0o600 });
      const at = (ms: number) => utimesSync(fileOf(record.id), new Date(ms), new Date(ms));

      at(clock.now());
      await assert.rejects(owner.register(record), { status: 'ALREADY_EXISTS' });
      at(clock.now() - TTL_MS - 1);
      await owner.register(record);

      assert.ok((await idsIn(owner)).includes(record.id));
    });

    it('replaces no folder under the own name', async () => {
      const owner = await open();
      const record = instanceOf('greeter');
      mkdirSync(fileOf(record.id), { recursive: true, mode: 0o700 });
      utimesSync(fileOf(record.id), new Date(0), new Date(0));

      await assert.rejects(owner.register(record), { status: 'ALREADY_EXISTS' });
    });
  });

  describe('time', () => {
    /** Lets owner and reader live on for a while, step by step, as the event loop would. */
    async function live(ms: number, ...clocks: ManualClock[]): Promise<void> {
      for (let passed = 0; passed < ms; passed += POLL_MS) {
        for (const clock of clocks) {
          clock.pass(POLL_MS);
          await sleep(15);
        }
      }
    }

    for (const hours of [1, -1]) {
      it(`expires nobody when the clock jumps by ${hours} h, but still the dead`, async () => {
        const [living, dying, reading] = [new ManualClock(), new ManualClock(), new ManualClock()];
        const [owner, victim] = [await open({ clock: living }), await open({ clock: dying })];
        const [kept, lost] = [instanceOf('greeter'), instanceOf('greeter')];
        await owner.register(kept);
        await victim.register(lost);
        const reader = await open({ clock: reading });
        const events = collect(reader);
        await eventually(() => assert.equal(events.length, 1));

        for (const clock of [living, dying, reading]) clock.jump(hours * 3_600_000);
        await live(TTL_MS / 2, reading, living, dying);
        assert.deepEqual(changesIn(events), []);
        await live(2 * TTL_MS, reading, living);

        await eventually(async () => {
          await live(POLL_MS, reading, living);
          assert.deepEqual(changesIn(events), [{ type: 'removed', id: lost.id }]);
        });
      });
    }

    it('leaves no heartbeat behind when it is closed while the first registration is under way', async () => {
      const clock = new ManualClock();
      const session = await open({ clock });

      const registering = session.register(instanceOf('greeter'));
      await new Promise((resolve) => setImmediate(resolve));
      await session.close();
      await registering.catch(() => {});

      assert.equal(clock.timers, 0);
      assert.equal(existsSync(join(directory, 'greeter')) ? readdirSync(join(directory, 'greeter')).length : 0, 0);
    });

    it('sweeps an expired file and a forgotten draft after a minute, not before', async () => {
      const [late, now] = [new ManualClock(), new ManualClock()];
      const victim = await open({ clock: late });
      const record = instanceOf('greeter');
      await victim.register(record);
      const draft = join(directory, 'greeter', '.00000000-0000-4000-8000-000000000000.tmp');
      writeFileSync(draft, '');
      utimesSync(draft, new Date(late.now()), new Date(late.now()));
      const reader = await open({ clock: now }, { pollMs: 60_000 });
      const events = collect(reader);
      await eventually(() => assert.equal(events.length, 1));

      now.pass(60_000);
      await eventually(() => assert.deepEqual(changesIn(events), [{ type: 'removed', id: record.id }]));
      assert.ok(existsSync(fileOf(record.id)) && existsSync(draft));
      await eventually(() => assert.equal(now.timers, 1));
      now.pass(60_000);

      await eventually(() => assert.ok(!existsSync(fileOf(record.id)) && !existsSync(draft)));
    });

    it('leaves no timer behind when the session closes, or when the last watch ends', async () => {
      const clock = new ManualClock();
      const session = await open({ clock });
      await session.register(instanceOf('greeter'));
      const abort = new AbortController();
      const events = collect(session, abort.signal);
      await eventually(() => assert.equal(events.length, 1));
      await eventually(() => assert.equal(clock.timers, 2));

      abort.abort();
      clock.pass(POLL_MS);
      await eventually(() => assert.equal(clock.timers, 1));
      await session.close();

      assert.equal(clock.timers, 0);
    });
  });
});

/** Sets the heartbeats of all files to the present. */
async function touch(path: string): Promise<void> {
  for (const name of readdirSync(path)) utimesSync(join(path, name), new Date(), new Date());
}

function collect(session: RegistrySession, signal?: AbortSignal): RegistryEvent[] {
  const events: RegistryEvent[] = [];
  void (async () => {
    for await (const event of session.watch('greeter', signal ? { signal } : {})) events.push(event);
  })();
  return events;
}

function changesIn(events: readonly RegistryEvent[]): RegistryEvent[] {
  return events.slice(1).filter(({ type }) => type !== 'state');
}

function statesIn(events: readonly RegistryEvent[]): string[] {
  return events.flatMap((event) => (event.type === 'state' ? [event.state] : []));
}

async function nextOf(session: RegistrySession, type: RegistryEvent['type']): Promise<RegistryEvent | undefined> {
  for await (const event of session.watch('greeter')) if (event.type === type) return event;
  return undefined;
}

/** What a watcher knows that has applied every event; by id, in order. */
function knownBy(session: RegistrySession): ReadonlyMap<string, InstanceRecord> {
  const known = new Map<string, InstanceRecord>();
  const put = (instance: InstanceRecord) => {
    known.set(instance.id, instance);
    const sorted = [...known].sort(([a], [b]) => (a < b ? -1 : 1));
    known.clear();
    for (const [id, record] of sorted) known.set(id, record);
  };
  void (async () => {
    for await (const event of session.watch('greeter')) {
      if (event.type === 'snapshot') {
        known.clear();
        event.instances.forEach(put);
      } else if (event.type === 'removed') known.delete(event.id);
      else if (event.type !== 'state') put(event.instance);
    }
  })();
  return known;
}
