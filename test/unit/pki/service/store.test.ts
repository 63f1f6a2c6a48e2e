import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import fileSystem from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { systemClock } from '@sallyport/core/spi';
import { PkiError, type PkiErrorCode } from '@sallyport/pki';
import { type Fact, Ledger, Store } from '@sallyport/pki/spi';
import { fakeClock } from '@sallyport/testing';
import sinon from 'sinon';
import { startNode } from '../../../support/child.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

const HOUR_MS = 3_600_000;
const id = 'spiffe://prod.acme/svc/web';

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

function open(directory = join(folder.path, 'store'), maxJournalBytes = 1_000_000): Promise<Store> {
  return Store.open({ directory, clock: systemClock, maxJournalBytes });
}

function refusal(code: PkiErrorCode) {
  return (error: unknown) => error instanceof PkiError && error.code === code;
}

function token(hash: string): Fact {
  return { fact: 'join-token', hash, id, expiresAt: Date.now() + HOUR_MS };
}

function issued(serial: string, spent?: string): Fact {
  return {
    fact: 'issued',
    serial,
    id,
    notAfter: Date.now() + HOUR_MS,
    issuer: 'A',
    ...(spent === undefined ? {} : { spent }),
  };
}

function revoked(serial: string): Fact {
  return { fact: 'revoked', serial, at: Date.now(), reason: 'keyCompromise' };
}

/** What matters of a store: which of these tokens still admit, which of these serials are revoked. */
function summary({ ledger }: Store, tokens: readonly string[], serials: readonly string[]) {
  const now = Date.now();
  const usable = tokens.filter((hash) => {
    const taken = ledger.take(hash, now);
    taken?.giveBack();
    return taken !== undefined;
  });
  return { usable, revoked: serials.filter((serial) => ledger.isRevoked(serial)), number: ledger.listNumber };
}

describe('the store of an authority', () => {
  it('knows after a restart what it was told', async () => {
    const before = await open();
    await Promise.all([token('t1'), token('t2'), issued('01', 't1'), issued('02')].map((fact) => before.record(fact)));
    await before.record(revoked('02'));
    await before.record({ fact: 'list-numbered', number: 7 });
    await before.close();

    const after = await open();

    assert.deepEqual(summary(after, ['t1', 't2'], ['01', '02']), { usable: ['t2'], revoked: ['02'], number: 7 });
    assert.deepEqual(
      after.ledger.revokedBy('A').map(({ serial, reason }) => [serial, reason]),
      [['02', 'keyCompromise']],
    );
    await after.close();
  });

  it('knows the same when the journal was folded into snapshots on the way', async () => {
    const before = await open(undefined, 500);
    for (let index = 0; index < 20; index++) {
      await before.record(token(`t${index}`));
      await before.record(issued(`0${index}`, `t${index}`));
      if (index % 2 === 0) await before.record(revoked(`0${index}`));
    }
    await before.close();

    const after = await open();

    const names = Array.from({ length: 20 }, (_, index) => index);
    const told = summary(
      after,
      names.map((index) => `t${index}`),
      names.map((index) => `0${index}`),
    );
    assert.deepEqual(told.usable, []);
    assert.deepEqual(
      told.revoked,
      names.filter((index) => index % 2 === 0).map((index) => `0${index}`),
    );
    assert.ok(existsSync(join(folder.path, 'store', 'snapshot.jsonl')));
    assert.equal(readdirSync(join(folder.path, 'store')).filter((name) => name.startsWith('journal')).length, 1);
    await after.close();
  });

  it('cut off at any byte opens with all that was promised before that byte', async () => {
    const directory = join(folder.path, 'store');
    const before = await open(directory);
    const journal = join(directory, 'journal-0.jsonl');
    const promised: { readonly bytes: number; readonly state: ReturnType<typeof summary> }[] = [];
    const tell = async (...facts: Fact[]) => {
      await Promise.all(facts.map((fact) => before.record(fact)));
      promised.push({ bytes: readFileSync(journal).length, state: summary(before, ['t1'], ['01', '02']) });
    };
    await tell(token('t1'));
    await tell(issued('01', 't1'), issued('02'));
    await tell(revoked('01'));
    await tell(revoked('02'));
    await before.close();
    const whole = readFileSync(journal);

    for (let length = 0; length <= whole.length; length++) {
      writeFileSync(journal, whole.subarray(0, length));
      const store = await open(directory);
      const last = promised.filter(({ bytes }) => bytes <= length).at(-1)?.state ?? { usable: [], revoked: [] };
      const now = summary(store, ['t1'], ['01', '02']);
      await store.close();
      for (const serial of last.revoked) assert.ok(now.revoked.includes(serial), `${serial} came back at ${length}`);
      if (promised.slice(1).some(({ bytes }) => bytes <= length)) assert.deepEqual(now.usable, [], `at ${length}`);
    }
  });

  it('goes on after a torn write, and keeps what comes then', async () => {
    const directory = join(folder.path, 'store');
    const before = await open(directory);
    await before.record(token('t1'));
    await before.close();
    appendFileSync(join(directory, 'journal-0.jsonl'), 'deadbeef 2 {"fact":"iss');

    const torn = await open(directory);
    await torn.record(issued('01', 't1'));
    await torn.close();

    const after = await open(directory);
    assert.deepEqual(summary(after, ['t1'], []).usable, []);
    await after.close();
  });

  it('refuses a journal that is damaged where it was promised', async () => {
    const directory = join(folder.path, 'store');
    const before = await open(directory);
    for (const fact of [token('t1'), issued('01', 't1'), revoked('01'), token('t2')]) await before.record(fact);
    await before.close();
    const journal = join(directory, 'journal-0.jsonl');
    const bytes = readFileSync(journal);
    const at = bytes.indexOf('"revoked"') + 1;
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    writeFileSync(journal, bytes);

    await assert.rejects(open(directory), refusal('store-damaged'));
  });

  it('refuses a journal whose snapshot is missing, and a snapshot without its end', async () => {
    const directory = join(folder.path, 'store');
    const before = await open(directory, 100);
    for (let index = 0; index < 5; index++) await before.record(token(`t${index}`));
    await before.close();
    const snapshot = join(directory, 'snapshot.jsonl');
    const text = readFileSync(snapshot, 'utf8');

    writeFileSync(snapshot, text.slice(0, -5));
    await assert.rejects(open(directory), refusal('store-damaged'));
    rmSync(snapshot);
    await assert.rejects(open(directory), refusal('store-damaged'));
  });

  it('survives a crash between each two steps of folding', async () => {
    const directory = join(folder.path, 'store');
    const copy = join(folder.path, 'copy');
    const before = await open(directory, 1_000_000);
    await before.record(token('t1'));
    await before.record(issued('01', 't1'));
    await before.record(revoked('01'));
    await before.close();
    const folded = join(folder.path, 'folded');
    cpSync(directory, folded, { recursive: true });
    const folding = await open(folded, 1);
    await folding.record({ fact: 'list-numbered', number: 1 });
    await folding.close();
    const snapshot = readFileSync(join(folded, 'snapshot.jsonl'));
    const states: readonly (readonly [string, Buffer | string][])[] = [
      [['snapshot.tmp', snapshot.subarray(0, 30)]],
      [['snapshot.tmp', snapshot]],
      [['snapshot.jsonl', snapshot]],
      [
        ['snapshot.jsonl', snapshot],
        ['journal-1.jsonl', ''],
      ],
    ];

    for (const files of states) {
      rmSync(copy, { recursive: true, force: true });
      cpSync(directory, copy, { recursive: true });
      for (const [name, content] of files) writeFileSync(join(copy, name), content, { mode: 0o600 });
      const store = await open(copy);
      const { usable, revoked } = summary(store, ['t1'], ['01']);
      await store.close();
      assert.deepEqual([usable, revoked], [[], ['01']], files.map(([name]) => name).join(' and '));
    }
  });

  it('is open once at a time', async () => {
    const store = await open();

    await assert.rejects(open(), refusal('store-busy'));

    await store.close();
    await (await open()).close();
  });

  it('takes over what a dead process left behind, and leaves alone what a living one holds', async () => {
    const directory = join(folder.path, 'store');
    await (await open(directory)).close();
    const { hostname } = await import('node:os');

    writeFileSync(join(directory, 'lock'), `${hostname()} ${process.ppid}\n`, { mode: 0o600 });
    await assert.rejects(open(directory), refusal('store-busy'));
    writeFileSync(join(directory, 'lock'), `${hostname()} 999999999\n`, { mode: 0o600 });
    await (await open(directory)).close();
  });

  it('is taken over by one alone when many come at once', async function () {
    this.timeout(20_000);
    const directory = join(folder.path, 'store');
    await (await open(directory)).close();
    const { hostname } = await import('node:os');
    writeFileSync(join(directory, 'lock'), `${hostname()} 999999999\n`, { mode: 0o600 });
    const script = `
      import { systemClock } from '@sallyport/core/spi';
      import { Store } from '@sallyport/pki/spi';
      const [directory, at] = process.argv.slice(1);
      setInterval(() => {}, 1000);
      while (Date.now() < Number(at));
      const opened = Store.open({ directory, clock: systemClock, maxJournalBytes: 1e6 });
      console.log(await opened.then(() => 'open', (error) => error.code));`;
    const args = ['--input-type=module', '--eval', script, directory, String(Date.now() + 1500)];

    const lives = Array.from({ length: 6 }, () => startNode(args, { cwd: import.meta.dirname }));
    const said = await Promise.all(lives.map(async (life) => (await life.output(/open|store-\w+/))[0]));
    await Promise.all(lives.map((life) => life.stop('SIGKILL')));

    assert.deepEqual(said.toSorted(), ['open', ...Array.from({ length: 5 }, () => 'store-busy')]);
  });

  it('refuses files that others may read or change, as a backup may bring them back', async () => {
    const directory = join(folder.path, 'store');
    await (await open(directory)).close();

    for (const name of ['journal-0.jsonl', 'audit.jsonl']) {
      chmodSync(join(directory, name), 0o664);
      await assert.rejects(open(directory), refusal('file-exposed'), name);
      chmodSync(join(directory, name), 0o600);
    }
    await (await open(directory)).close();
  });

  it('refuses a folder that others may change', async () => {
    const directory = join(folder.path, 'store');
    await (await open(directory)).close();
    chmodSync(directory, 0o777);

    await assert.rejects(open(directory), refusal('file-exposed'));
  });

  it('voids a token that somebody holds when its identity is revoked, wherever the clock stands', () => {
    const ledger = new Ledger();
    const now = Date.now();
    ledger.apply(token('t1'));
    ledger.apply(token('t2'));
    const [held, other] = [ledger.take('t1', now), ledger.take('t2', now)];

    other?.giveBack();
    ledger.apply({ fact: 'identity-revoked', id, at: now - 1000, until: now + HOUR_MS }); // the clock was set back
    held?.giveBack();

    assert.deepEqual([ledger.take('t1', now), ledger.take('t2', now)], [undefined, undefined]);
  });

  it('forgets nothing that lives because a clock leaps ahead for a while', async () => {
    const clock = fakeClock();
    const directory = join(folder.path, 'store');
    const store = await Store.open({ directory, clock, maxJournalBytes: 300 });
    const notAfter = clock.now() + HOUR_MS;
    for (const serial of ['01', '02']) await store.record({ ...issued(serial), notAfter } as Fact);
    await store.record({ fact: 'revoked', serial: '01', at: clock.now() });

    clock.jump(24 * HOUR_MS);
    await clock.advance(60_000);
    await store.record({ fact: 'list-numbered', number: 1 });
    clock.jump(-24 * HOUR_MS);

    assert.deepEqual([store.ledger.isRevoked('01'), store.ledger.serialsOf(id)], [true, ['02']]);
    await store.close();
    const after = await Store.open({ directory, clock, maxJournalBytes: 300 });
    assert.deepEqual([after.ledger.isRevoked('01'), after.ledger.serialsOf(id)], [true, ['02']]);
    await clock.advance(3 * HOUR_MS);
    assert.equal(after.ledger.certificates, 0);
    await after.close();
  });

  describe('whose audit log is full', () => {
    const directory = () => join(folder.path, 'store');
    const log = () => join(directory(), 'audit.jsonl');
    const write = (store: Store, serial: string) =>
      store.record(revoked(serial), { what: 'revoked', serials: [serial], identity: id, reason: 'r', by: 'operator' });
    const readSerials = () => {
      const logs = readdirSync(directory()).filter((name) => name.startsWith('audit'));
      const text = logs.map((name) => readFileSync(join(directory(), name), 'latin1').replaceAll('\0', '')).join('');
      return [...text.matchAll(/"serials":\["(\d\d)"\]/g)].map(([, serial]) => serial).toSorted();
    };
    afterEach(() => {
      sinon.restore();
      syncBuiltinESMExports();
    });

    /** The file that follows cannot be made until it is restored. */
    function noNewLog(): void {
      const { open: openFile } = fileSystem;
      sinon
        .stub(fileSystem, 'open')
        .callsFake((path, ...rest) => (path === log() ? Promise.reject(new Error('ENOSPC')) : openFile(path, ...rest)));
      syncBuiltinESMExports();
    }

    it('loses no entry when the next one cannot be made, and tries again with each write', async () => {
      await (await open()).close();
      truncateSync(log(), 64 * 1024 * 1024 - 50);
      const store = await open();

      noNewLog();
      await write(store, '01');
      await write(store, '02');
      assert.ok(!existsSync(log()));
      sinon.restore();
      syncBuiltinESMExports();
      await write(store, '03');

      assert.ok(statSync(log()).size < 1000);
      assert.deepEqual(readSerials(), ['01', '02', '03']);
      await store.close();
    });
  });

  describe('opened with a clock that is ahead', () => {
    const clock = fakeClock();
    const reopened = async (store?: Store) => {
      await store?.close();
      return await Store.open({ directory: join(folder.path, 'store'), clock, maxJournalBytes: 300 });
    };
    const certificate = (serial: string): Fact => ({ ...issued(serial), notAfter: clock.now() + HOUR_MS }) as Fact;
    const listed = (): Fact => ({ fact: 'list-numbered', number: clock.now() });
    const known = ({ ledger }: Store) => [
      ledger.isRevoked('01'),
      ledger.wasRevokedSince(id, 0),
      ledger.serialsOf(id),
      ledger.revokedBy('A').length,
    ];
    const all = [true, true, ['02'], 1];

    it('forgets nothing that lives, however often', async () => {
      let store = await reopened();
      for (const serial of ['01', '02']) await store.record(certificate(serial));
      await store.record({ fact: 'revoked', serial: '01', at: clock.now() });
      await store.record({ fact: 'identity-revoked', id, at: clock.now(), until: clock.now() + HOUR_MS });
      await store.record(listed());

      clock.jump(3 * HOUR_MS);
      for (let time = 0; time < 3; time++) {
        store = await reopened(store);
        await store.record(listed());
        await clock.advance(5 * 60_000);
        assert.deepEqual(known(store), all, `time ${time}`);
      }
      clock.jump(-3 * HOUR_MS);
      store = await reopened(store);

      assert.deepEqual(known(store), all);
      await clock.advance(3 * HOUR_MS);
      assert.equal(store.ledger.certificates, 0);
      await store.close();
    });

    it('forgets nothing that lives when it has never numbered a list either', async () => {
      let store = await reopened();
      for (const serial of ['01', '02']) await store.record(certificate(serial));
      await store.record({ fact: 'identity-revoked', id, at: clock.now(), until: clock.now() + HOUR_MS });
      await store.record({ fact: 'revoked', serial: '01', at: clock.now() });

      clock.jump(3 * HOUR_MS);
      store = await reopened(store);

      assert.deepEqual(known(store), all);
      await store.close();
    });

    it('forgets all the same what is over after a month, and holds no more from then on than what lives', async () => {
      let store = await reopened();
      for (const serial of ['01', '02']) await store.record(certificate(serial));
      await store.record({ fact: 'revoked', serial: '01', at: clock.now() });
      await store.record(listed());

      clock.jump(30 * 24 * HOUR_MS);
      store = await reopened(store);
      assert.deepEqual([store.ledger.certificates, store.ledger.living], [2, 0]);
      await store.record(certificate('03'));
      await clock.advance(2 * HOUR_MS);

      assert.equal(store.ledger.certificates, 0);
      await store.record(certificate('04'));
      await clock.advance(HOUR_MS + 60_000);
      assert.equal(store.ledger.certificates, 0);
      await store.close();
    });

    it('does not grow for ever when it is open for ten minutes a day', async () => {
      let store = await reopened();
      for (let day = 0; day < 30; day++) {
        await store.record(certificate(`1${day}`));
        await store.record(listed());
        await clock.advance(10 * 60_000);
        clock.jump(24 * HOUR_MS);
        store = await reopened(store);
      }

      assert.ok(store.ledger.certificates < 10, `${store.ledger.certificates} certificates`);
      await store.close();
    });
  });

  it('forgets certificates and tokens that are over', async () => {
    const store = await open();
    const past = Date.now() - 2 * HOUR_MS;
    await store.record({ ...issued('01'), notAfter: past } as Fact);
    await store.record({ ...token('t1'), expiresAt: past } as Fact);

    store.ledger.prune(Date.now());

    assert.deepEqual([store.ledger.certificates, store.ledger.tokens], [0, 0]);
    await store.close();
  });
});
