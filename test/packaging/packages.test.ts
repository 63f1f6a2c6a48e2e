import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Exit, runNode } from '../support/child.js';
import { importsOf, packageOf } from '../support/imports.js';
import { type Manifest, packages, root } from '../support/repository.js';
import { installPackages, type Packed, readPacked } from './pack.js';

/** What runs a sidecar; deploy.test.ts tells what is in them. */
const DEPLOY_FILES = [
  'deploy/container/Containerfile',
  'deploy/container/compose.yaml',
  'deploy/kubernetes/ledger.yaml',
  'deploy/systemd/sallyport-sidecar-door@.socket',
  'deploy/systemd/sallyport-sidecar@.service',
];

describe('the published packages', function () {
  this.timeout(120_000);
  let project: string;
  let installed: Packed[];

  before(async () => {
    project = realpathSync(mkdtempSync(join(tmpdir(), 'sallyport-packaging-')));
    installed = await installPackages(project);
  });

  after(() => rmSync(project, { recursive: true, force: true }));

  for (const { manifest } of packages()) {
    describe(manifest.name, () => {
      const packed = (): Packed => {
        const found = installed.find(({ pkg }) => pkg.manifest.name === manifest.name);
        assert.ok(found, `${manifest.name} was not packed`);
        return found;
      };

      it('holds compiled code, its types and maps, README, LICENSE and manifest, and nothing else', () => {
        const { files } = packed();
        const others = files.filter((file) => !/^dist\/[\w./-]+\.(js|js\.map|d\.ts)$/.test(file));
        const deployed = manifest.name === '@sallyport/sidecar' ? DEPLOY_FILES : [];
        assert.deepEqual(others, ['LICENSE', 'README.md', ...deployed, 'package.json']);
      });

      it('holds the licence of the repository', () => {
        assert.equal(readPacked(packed(), 'LICENSE'), readFileSync(join(root, 'LICENSE'), 'utf8'));
      });

      it('holds no map that points to a source it does not contain', () => {
        const maps = packed().files.filter((file) => file.endsWith('.map'));
        const hollow = maps.filter((file) => {
          const { sources, sourcesContent } = JSON.parse(readPacked(packed(), file));
          return sources.length !== sourcesContent?.length || sourcesContent.includes(null);
        });
        assert.ok(maps.length > 0);
        assert.deepEqual(hollow, []);
      });

      it('declares what it imports, and imports what it declares', () => {
        const code = packed().files.filter((file) => /\.(js|d\.ts)$/.test(file));
        const specifiers = code.flatMap((file) =>
          importsOf(readPacked(packed(), file)).map(({ specifier }) => specifier),
        );
        const imported = new Set(specifiers.flatMap((specifier) => packageOf(specifier) ?? []));
        assert.deepEqual([...imported].sort(), Object.keys(manifest.dependencies ?? {}).sort());
      });

      it('names what comes with Node by its node: prefix', () => {
        const code = packed().files.filter((file) => /\.(js|d\.ts)$/.test(file));
        const bare = code.flatMap((file) =>
          importsOf(readPacked(packed(), file)).filter(
            ({ specifier }) => !specifier.startsWith('node:') && isBuiltin(specifier),
          ),
        );
        assert.deepEqual(bare, []);
      });

      it('resolves every path it exports', async () => {
        const paths = Object.keys(manifest.exports ?? {}).filter((path) => !path.endsWith('.json'));
        const lines = paths.map(
          (path) => `import * as module${paths.indexOf(path)} from '${manifest.name}${path.slice(1)}';`,
        );
        const counts = paths.map((_, i) => `Object.keys(module${i}).length`);
        const script = join(project, 'imports.mjs');
        writeFileSync(script, `${lines.join('\n')}\nconsole.log(JSON.stringify([${counts.join(', ')}]));\n`);
        const { code, stdout, stderr } = await runNode([script], { cwd: project });
        assert.equal(code, 0, stderr);
        assert.equal(stderr, '');
        const names: number[] = JSON.parse(stdout);
        assert.equal(names.length, paths.length);
        assert.ok(
          names.every((count) => count > 0),
          `an export is empty: ${stdout}`,
        );
      });

      it('has a README whose examples compile', async () => {
        const examples = [...readPacked(packed(), 'README.md').matchAll(/^```ts\n(.*?)^```/gms)].map(
          ([, code = '']) => code,
        );
        assert.ok(examples.length > 0);
        for (const example of examples) {
          const { code, stdout } = await compile(project, 'example.ts', example);
          assert.equal(code, 0, stdout);
        }
      });

      it('keeps its inside to itself', async () => {
        const script = join(project, 'inside.mjs');
        writeFileSync(script, `await import('${manifest.name}/dist/index.js');\n`);
        const { code, stderr } = await runNode([script], { cwd: project });
        assert.equal(code, 1);
        assert.match(stderr, /ERR_PACKAGE_PATH_NOT_EXPORTED/);
      });
    });
  }

  it('have types that compile in the project of a strict user', async () => {
    const paths = packages().flatMap(({ manifest }) => exportedPaths(manifest));
    const lines = paths.map((path, i) => `export * as module${i} from '${path}';\n`);
    const { code, stdout } = await compile(project, 'everything.ts', lines.join(''));
    assert.equal(code, 0, stdout);
  });

  it('carry types from a contract to its handlers and clients', async () => {
    const program = readFileSync(join(root, 'test/packaging/consumer/greeter.ts'), 'utf8');
    const { code, stdout } = await compile(project, 'greeter.ts', program);
    assert.equal(code, 0, stdout);
  });

  it('are published as one version that names its siblings exactly', () => {
    const versions = new Set(packages().map(({ manifest }) => manifest.version));
    assert.equal(versions.size, 1);
    const loose = packages().flatMap(({ manifest }) =>
      Object.entries(manifest.dependencies ?? {}).filter(
        ([name, range]) => /sallyport/.test(name) && !versions.has(range),
      ),
    );
    assert.deepEqual(loose, []);
  });
});

/** What a user may write after `from`. */
function exportedPaths({ name, exports = {} }: Manifest): string[] {
  return Object.keys(exports)
    .filter((path) => !path.endsWith('.json'))
    .map((path) => `${name}${path.slice(1)}`);
}

/** Compiles one file as strictly as can be, declarations of the packages and of what they stand on included. */
function compile(project: string, file: string, text: string): Promise<Exit> {
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  writeFileSync(join(project, file), text);
  const compilerOptions = {
    target: 'ES2023',
    module: 'NodeNext',
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmit: true,
    types: ['node'],
  };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [file] }));
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  return runNode([compiler, '-p', project], { cwd: project, timeoutMs: 60_000 });
}
