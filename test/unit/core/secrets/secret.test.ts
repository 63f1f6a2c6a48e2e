import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { Secret, SecretUnavailableError, secret } from '@sallyport/core';
import { isSecret, redactSecrets, rememberSecret } from '@sallyport/core/spi';
import sinon from 'sinon';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const CANARY = 'canary-3b1f9c';
const NAME = 'SALLYPORT_TEST_SECRET';

async function ids(of: Secret): Promise<string[]> {
  return (await of.check('registry.token')).map(({ id, path }) => `${id} at ${path}`);
}

describe('secret', () => {
  beforeEach(() => {
    process.env[NAME] = CANARY;
  });
  afterEach(() => {
    delete process.env[NAME];
  });

  it('reads an environment variable, anew each time', async () => {
    const token = secret.env(NAME);
    assert.equal(await token.read(), CANARY);
    process.env[NAME] = `${CANARY}-2`;
    assert.equal(await token.read(), `${CANARY}-2`);
  });

  it('reads a file without its last line break, anew each time', async () => {
    using folder = temporaryFolder();
    const path = folder.write('token', `${CANARY}\n`);
    const token = secret.file(path);

    assert.equal(await token.read(), CANARY);
    writeFileSync(path, ` ${CANARY}-2\r\n`);
    assert.equal(await token.read(), ` ${CANARY}-2`);
  });

  it('reads a store, anew each time', async () => {
    const values = [CANARY, `${CANARY}-2`];
    const token = secret.from({ name: 'vault', get: async (key) => (key === 'db' ? values.shift() : undefined) }, 'db');

    assert.equal(token.describe(), 'vault:db');
    assert.deepEqual([await token.read(), await token.read()], [CANARY, `${CANARY}-2`]);
  });

  it('T75 prints its place and never its value, before and after it was read', async () => {
    const token = secret.env(NAME);
    for (let round = 0; round < 2; round++) {
      const shown = [
        String(token),
        `${token}`,
        `${token}`.concat(''),
        JSON.stringify({ token }),
        inspect(token),
        inspect({ deep: { token } }, { showHidden: true, depth: 9 }),
        JSON.stringify(Object.getOwnPropertyDescriptors(token)),
      ];
      assert.ok(shown.slice(0, 6).every((text) => text.includes(`[secret env:${NAME}]`)));
      assert.doesNotMatch(shown.join('\n'), /canary/);
      await token.read();
    }
  });

  it('is told from what only looks like one', () => {
    assert.ok(isSecret(secret.env(NAME)));
    for (const other of [undefined, null, CANARY, {}, Object.create(Secret.prototype)]) assert.ok(!isSecret(other));
  });

  it('accepts a secret that can be read', async () => {
    assert.deepEqual(await ids(secret.env(NAME)), []);
  });

  it('refuses a variable that is not set or empty', async () => {
    delete process.env[NAME];
    assert.deepEqual(await ids(secret.env(NAME)), ['secret-unavailable at registry.token']);
    process.env[NAME] = '';
    assert.deepEqual(await ids(secret.env(NAME)), ['secret-unavailable at registry.token']);
  });

  it('T75 refuses the secret itself in place of a name, without showing it', async () => {
    const token = secret.env(CANARY);
    assert.deepEqual(await ids(token), ['secret-unavailable at registry.token']);
    assert.doesNotMatch(inspect(token) + JSON.stringify(await token.check()), /canary/);
  });

  it('refuses a file that is missing, empty or open to others', async () => {
    using folder = temporaryFolder();
    const path = folder.write('token', CANARY);

    assert.deepEqual(await ids(secret.file(`${path}.none`)), ['secret-unavailable at registry.token']);
    assert.deepEqual(await ids(secret.file(folder.write('empty', '\n'))), ['secret-unavailable at registry.token']);
    chmodSync(path, 0o644);
    assert.deepEqual(await ids(secret.file(path)), ['secret-file-exposed at registry.token']);
    await assert.rejects(secret.file(path).read(), SecretUnavailableError);
  });

  it('refuses a store that has no such key, fails, or is none, and does not repeat its words', async () => {
    const failing = secret.from({ get: () => Promise.reject(new Error(`denied for ${CANARY}`)) }, 'db');
    assert.deepEqual(await ids(secret.from({ get: async () => undefined }, 'db')), [
      'secret-unavailable at registry.token',
    ]);
    assert.deepEqual(await ids(secret.from(undefined as never, 'db')), ['secret-unavailable at registry.token']);
    await assert.rejects(failing.read(), (error: Error) => {
      assert.equal(error.message, '[secret store:db]: the store failed');
      assert.doesNotMatch(inspect(error), /canary/);
      return true;
    });
  });

  it('passes on why a store says that there is no secret', async () => {
    const sealed = secret.from({ get: () => Promise.reject(new SecretUnavailableError('it is sealed')) }, 'db');
    await assert.rejects(sealed.read(), { name: 'SecretUnavailableError', message: '[secret store:db]: it is sealed' });
  });

  it('gives a store that does not answer up after 10 s', async () => {
    const clock = sinon.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const reading = ids(secret.from({ get: () => new Promise(() => {}) }, 'db'));
      await clock.tickAsync(10_000);
      assert.deepEqual(await reading, ['secret-unavailable at registry.token']);
    } finally {
      clock.restore();
    }
  });
});

describe('redaction', () => {
  it('masks a secret once it was read, as text, in JSON and in URLs', async () => {
    const value = 'p"ss/w\\rd canary';
    const token = secret.from({ get: async () => value }, 'db');
    await token.read();

    for (const text of [`user:${value}@`, JSON.stringify({ value }), `?t=${encodeURIComponent(value)}&`]) {
      assert.match(redactSecrets(text), /\[secret store:db\]/);
      assert.doesNotMatch(redactSecrets(text), /canary/);
    }
  });

  it('masks every occurrence, and the longer of two secrets first', () => {
    rememberSecret('inner-9', '[short]');
    rememberSecret('outer-inner-9-outer', '[long]');
    assert.equal(redactSecrets('inner-9 outer-inner-9-outer inner-9'), '[short] [long] [short]');
  });

  it('takes masks literally', () => {
    rememberSecret('dollar-77', '[$& $1]');
    assert.equal(redactSecrets('a dollar-77 b'), 'a [$& $1] b');
  });

  it('leaves other text alone, and does not mask what is too short to be secret', () => {
    rememberSecret('abc', '[mask]');
    assert.equal(redactSecrets('abc and nothing else'), 'abc and nothing else');
  });

  it('forgets the oldest values when there are too many', () => {
    rememberSecret('oldest-value', '[old]');
    for (let i = 0; i < 600; i++) rememberSecret(`value-number-${i}-end`, '[new]');
    assert.equal(redactSecrets('oldest-value'), 'oldest-value');
    assert.equal(redactSecrets('value-number-599-end'), '[new]');
  });
});
