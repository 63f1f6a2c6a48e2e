import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runNode } from '../../support/child.js';
import { root } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

interface Results {
  readonly passed: number;
  readonly failed: number;
  readonly files: Readonly<Record<string, { readonly passed: number }>>;
  readonly failures: readonly { readonly title: string; readonly file: string; readonly error: string }[];
  readonly remaining?: readonly string[];
}

const PASSES = `it('passes', () => {});`;

/** Runs the files as npm test does, in a process of their own. */
async function runTests(files: Readonly<Record<string, string>>) {
  using folder = temporaryFolder();
  const paths = Object.entries(files).map(([name, body]) =>
    folder.write(
      name,
      `import { execFileSync } from 'node:child_process';\ndescribe('${name}', () => {\n${body}\n});\n`,
    ),
  );
  const results = join(folder.path, 'results.json');
  const mocha = [join(root, 'node_modules/mocha/bin/mocha.js'), '--no-config', '--timeout', '1000'];
  const reporter = ['--reporter', join(root, 'scripts/reporter.mjs')];
  const { code, signal, stderr } = await runNode([...mocha, ...reporter, ...paths], {
    env: { SALLYPORT_TEST_RESULTS: results, SALLYPORT_TEST_PATIENCE_MS: '2000' },
    timeoutMs: 25_000,
  });
  const written: Results = JSON.parse(readFileSync(results, 'utf8'));
  const named = (file: string) => Object.keys(files).find((name) => file.endsWith(name));
  return { code, signal, stderr, results: written, remaining: written.remaining?.map(named) };
}

describe("the tests' reporter", function () {
  this.timeout(30_000);

  it('names a test that only awaits what is there, and what had passed before and was to come', async () => {
    const { signal, stderr, results, remaining } = await runTests({
      'a.test.mjs': PASSES,
      'b.test.mjs': `it('spins', async function spins() { for (;;) await null; });`,
      'c.test.mjs': PASSES,
    });

    assert.equal(signal, 'SIGKILL');
    assert.match(
      stderr,
      /HUNG: b\.test\.mjs › spins\nthe event loop has not turned for 2 s\n {4}at spins \(\S+b\.test\.mjs:3:/,
    );
    assert.deepEqual([results.passed, results.failed], [1, 1]);
    assert.deepEqual(
      Object.values(results.files).map(({ passed }) => passed),
      [1],
    );
    assert.deepEqual(
      results.failures.map(({ title }) => title),
      ['b.test.mjs › spins'],
    );
    assert.match(results.failures[0]?.error ?? '', /at spins/);
    assert.deepEqual(remaining, ['c.test.mjs']);
  });

  it('names a test that waits in a call into the system', async () => {
    const { signal, results } = await runTests({
      'a.test.mjs': `it('waits', () => { execFileSync('sleep', ['20']); });`,
    });

    assert.equal(signal, 'SIGKILL');
    assert.match(results.failures[0]?.error ?? '', /in no code of JavaScript/);
  });

  it('lets a test that does too long what mocha can end be ended by mocha', async () => {
    const { code, results, remaining } = await runTests({
      'a.test.mjs': `it('sleeps', () => new Promise((resolve) => setTimeout(resolve, 2000)));`,
      'b.test.mjs': PASSES,
    });

    assert.equal(code, 1);
    assert.match(results.failures[0]?.error ?? '', /Timeout of 1000ms exceeded/);
    assert.equal(results.passed, 1);
    assert.equal(remaining, undefined);
  });

  it('stops after 50 failures', async () => {
    const { code, stderr, results } = await runTests({
      'a.test.mjs': `for (let n = 0; n < 60; n++) it('fails ' + n, () => { throw new Error('no'); });`,
      'b.test.mjs': PASSES,
    });

    assert.notEqual(code, 0);
    assert.match(stderr, /50 tests have failed; no more are run/);
    assert.equal(results.failures.length, 50);
    assert.equal(results.passed, 0);
  });
});
