import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { TlsSource } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { fakeClock } from '@sallyport/testing';
import { type Exit, runNode, startNode } from '../support/child.js';
import { RecordedEvents } from '../support/registry-context.js';
import { root } from '../support/repository.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';
import { page, pages } from './pages.js';

/** Of a leaf that lives an hour, and a minute more. */
const HALF_LIFE_MS = 31 * 60_000;

describe('the examples of the documentation', function () {
  this.timeout(120_000);
  const folder = temporaryFolder();
  const compiled = (path: string) => join(folder.path, 'dist', path);
  const mocha = (...paths: string[]) =>
    runNode([join(root, 'node_modules/mocha/bin/mocha.js'), ...paths.map(compiled)], { cwd: folder.path });

  let compilation: Exit;

  before(async () => {
    symlinkSync(join(root, 'node_modules'), join(folder.path, 'node_modules'));
    compilation = await compile(folder);
  });
  after(() => folder[Symbol.dispose]());

  it('compile as strictly as can be', () => {
    assert.equal(compilation.code, 0, compilation.stdout);
  });

  it('name the few that cannot be compiled here', () => {
    const unchecked = pages().flatMap(({ path, examples }) =>
      examples.filter((example) => example.unchecked).map(({ file }) => `${path} ${file}`),
    );
    assert.deepEqual(unchecked, ['docs/events.md pino.ts', 'docs/testing.md greeter.vitest.ts']);
  });

  it('take a reader from an empty folder to two processes that call each other', async () => {
    const cwd = folder.path;
    const authority = await runNode([compiled('getting-started/authority.js')], { cwd });
    assert.equal(authority.code, 0, authority.stderr);
    await using greeter = startNode([compiled('getting-started/greeter.js')], { cwd });
    await greeter.output(/ ready/);

    const web = await runNode([compiled('getting-started/web.js')], { cwd });
    const { code } = await greeter.stop();

    const transcript = /^```text\n(.*?)^```/ms.exec(page('docs/getting-started.md').text)?.[1];
    assert.equal(web.stdout, transcript, web.stderr);
    assert.deepEqual([web.code, code], [0, 0]);
  });

  it('test a service with mocha', async () => {
    const { code, stdout } = await mocha('testing/greeter.mocha.js', 'testing/time.mocha.js');
    assert.equal(code, 0, stdout);
    assert.match(stdout, /3 passing/);
  });

  it('make a registry that passes the conformance suite', async () => {
    const { code, stdout } = await mocha('adapters/directory-registry.mocha.js');
    assert.equal(code, 0, stdout);
    assert.doesNotMatch(stdout, /pending/);
  });

  it('make a source of certificates that renews at half-life and keeps the last good one', async () => {
    const { IssuerSource } = await import(compiled('adapters/issuer-source.js'));
    const authority = createAuthority({ trustDomain: 'test.acme' });
    const [clock, events] = [fakeClock(), new RecordedEvents()];
    let reachable = true;
    const source: TlsSource = new IssuerSource(async () => {
      if (!reachable) throw new Error('s3cret');
      const { certificatePem, privateKeyPem } = authority.issue({
        id: 'spiffe://test.acme/svc/web',
        notBefore: clock.now(),
      });
      return { cert: certificatePem, key: privateKeyPem, ca: authority.bundlePem, bundles: {}, crl: [] };
    });
    const handle = await source.open({ clock, events });
    const first = handle.current().leaf.serialNumber;

    await clock.advance(HALF_LIFE_MS);
    reachable = false;
    await clock.advance(HALF_LIFE_MS);
    handle.close();

    assert.equal(events.of('rotated').length, 1);
    assert.notEqual(handle.current().leaf.serialNumber, first);
    assert.match(events.of('rotation-failed')[0]?.detail ?? '', /the authority did not answer/);
    assert.doesNotMatch(JSON.stringify(events.all), /s3cret/);
  });

  it('test a service with node:test', async () => {
    const { code, stdout } = await runNode(['--test', compiled('testing/greeter.node.js')], { cwd: folder.path });
    assert.equal(code, 0, stdout);
    assert.match(stdout, /pass 2/);
  });
});

/** Writes each page into a folder of its own, so that its examples can import each other, and compiles them all. */
function compile(folder: TemporaryFolder): Promise<Exit> {
  const files = pages().flatMap(({ name, examples }) => {
    mkdirSync(join(folder.path, name));
    return examples.filter(({ unchecked }) => !unchecked).map(({ file, code }) => folder.write(join(name, file), code));
  });
  folder.write('package.json', JSON.stringify({ name: 'reader', private: true, type: 'module' }));
  const compilerOptions = {
    target: 'ES2023',
    lib: ['ES2023', 'ESNext.Disposable'],
    module: 'NodeNext',
    moduleDetection: 'force',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    types: ['node', 'mocha'],
    rootDir: '.',
    outDir: 'dist',
  };
  folder.write('tsconfig.json', JSON.stringify({ compilerOptions, files }));
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  return runNode([compiler, '-p', folder.path], { cwd: folder.path, timeoutMs: 60_000 });
}
