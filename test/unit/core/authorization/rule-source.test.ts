import assert from 'node:assert/strict';
import { chmod, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { allow, rules } from '@sallyport/core';
import { type RuleHandle, systemClock, toRuleSource } from '@sallyport/core/spi';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

const read = allow({ name: 'read', from: 'spiffe://prod.acme/svc/web', to: 'orders.v1.Orders/Get' });
const write = allow({ name: 'write', from: 'spiffe://prod.acme/svc/web', to: 'orders.v1.Orders/Put' });

describe('rule source', () => {
  it('takes a list of rules as a source that never changes', async () => {
    const source = toRuleSource([read], 'authorize');

    assert.deepEqual(await source.check(), []);
    const handle = await source.open(silent());
    assert.deepEqual(namesOf(handle), ['read']);
    handle.close();
  });

  it('takes a source as it is', () => {
    const source = rules.fromFile('policy.json');

    assert.equal(toRuleSource(source, 'authorize'), source);
  });

  for (const [input, id] of [
    [undefined, 'authorization-missing'],
    [null, 'authorization-missing'],
    [[allow({ from: '*', to: 'a.B/C' })], 'authorization-allow-all'],
    ['everybody', 'option-invalid'],
    [{ check: true }, 'authorization-rule-invalid'],
  ] as const) {
    it(`refuses ${JSON.stringify(input)} at check and at open`, async () => {
      const source = toRuleSource(input, 'authorize');

      assert.ok((await source.check()).some((v) => v.id === id));
      await assert.rejects(source.open(silent()), { name: 'InsecureConfigurationError' });
    });
  }
});

describe('rule file', () => {
  let folder: TemporaryFolder;
  let file: string;
  let handle: RuleHandle | undefined;

  beforeEach(async () => {
    folder = temporaryFolder();
    file = join(folder.path, 'policy.json');
    await save(document(read));
  });

  afterEach(() => {
    handle?.close();
    handle = undefined;
    folder[Symbol.dispose]();
  });

  it('gives its rules', async () => {
    const source = rules.fromFile(file);

    assert.deepEqual(await source.check(), []);
    handle = await source.open(silent());
    assert.deepEqual(namesOf(handle), ['read']);
  });

  it('is followed: a new version takes effect and raises an event', async () => {
    const { context, next } = recording();
    handle = await rules.fromFile(file, { pollMs: 50 }).open(context);
    const seen: string[][] = [];
    handle.onChange((changed) => seen.push(changed.map(({ name }) => name)));

    await save(document(read, write));

    assert.deepEqual(await next(), { type: 'rules-reloaded', file, rules: 2 });
    assert.deepEqual(namesOf(handle), ['read', 'write']);
    assert.deepEqual(seen, [['read', 'write']]);
  });

  for (const [what, damage, detail] of [
    ['is not JSON', () => save('{ "version": 1, "rules": [ s3cret'), /not JSON/],
    [
      'lets everybody in',
      () => save(document(allow({ from: '*', to: '*' }))),
      /authorization-allow-all at policy\.json\.rules\[0\]/,
    ],
    ['has a newer version', () => save({ version: 2, rules: [] }), /version 1 only/],
    ['disappears', () => rm(file), /authorization-file-unreadable/],
    ['becomes writable by others', () => chmod(file, 0o666), /authorization-file-writable/],
  ] as [string, () => Promise<void>, RegExp][]) {
    it(`keeps the last good rules when it ${what}, and recovers`, async () => {
      const { context, next } = recording();
      handle = await rules.fromFile(file, { pollMs: 50 }).open(context);

      await damage();
      const failed = await next();
      const kept = namesOf(handle);
      await save(document(write));
      const recovered = await next();

      assert.equal(failed.type, 'rules-reload-failed');
      assert.match(String(failed.detail), detail);
      assert.doesNotMatch(String(failed.detail), /s3cret/);
      assert.deepEqual(kept, ['read']);
      assert.equal(recovered.type, 'rules-reloaded');
      assert.deepEqual(namesOf(handle), ['write']);
    });
  }

  for (const [what, damage, id] of [
    ['that others can write', () => chmod(file, 0o666), 'authorization-file-writable'],
    ['in a folder that others can write', () => chmod(folder.path, 0o777), 'authorization-file-writable'],
    ['that is not there', () => rm(file), 'authorization-file-unreadable'],
    ['that is not JSON', () => save('allow all'), 'authorization-file-unreadable'],
    ['with a rule that is not valid', () => save(document({ ...read, to: 'x' })), 'authorization-rule-invalid'],
    ['with an allow-all rule', () => save(document({ ...read, from: '*' })), 'authorization-allow-all'],
  ] as [string, () => Promise<void>, string][]) {
    it(`refuses to start with a file ${what}`, async () => {
      await damage();
      const source = rules.fromFile(file);

      assert.deepEqual(
        (await source.check()).map((v) => v.id),
        [id],
      );
      await assert.rejects(source.open(silent()), { name: 'InsecureConfigurationError' });
    });
  }

  for (const [what, source, id] of [
    ['no name', () => rules.fromFile(''), 'option-invalid'],
    ['polling without a pause', () => rules.fromFile('policy.json', { pollMs: 0 }), 'limit-unbounded'],
    ['an unknown option', () => rules.fromFile('policy.json', { poll: 5 } as never), 'option-unknown'],
  ] as const) {
    it(`refuses ${what}`, async () => {
      assert.deepEqual(
        (await source().check()).map((v) => v.id),
        [id],
      );
      await assert.rejects(source().open(silent()), { name: 'InsecureConfigurationError' });
    });
  }

  it('is left alone after close, which may be called twice', async () => {
    const { context, events } = recording();
    const closing = await rules.fromFile(file, { pollMs: 20 }).open(context);

    closing.close();
    closing.close();
    await save(document(read, write));
    await new Promise((resolve) => setTimeout(resolve, 120));

    assert.deepEqual(events, []);
    assert.deepEqual(namesOf(closing), ['read']);
  });

  async function save(content: unknown): Promise<void> {
    await writeFile(`${file}.new`, typeof content === 'string' ? content : JSON.stringify(content), { mode: 0o600 });
    await rename(`${file}.new`, file);
  }
});

function document(...list: unknown[]): unknown {
  return { version: 1, rules: list };
}

function namesOf(handle: RuleHandle): string[] {
  return handle.current().map(({ name }) => name);
}

function silent() {
  return { clock: systemClock, events: { emit: () => {} } };
}

interface Recorded {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** A context whose events can be awaited one by one. */
function recording() {
  const events: Recorded[] = [];
  let wake = () => {};
  const emit = (type: string, fields: object) => {
    events.push({ type, ...fields });
    wake();
  };
  async function next(): Promise<Recorded> {
    for (;;) {
      const event = events.shift();
      if (event !== undefined) return event;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
  return { context: { clock: systemClock, events: { emit } }, events, next };
}
