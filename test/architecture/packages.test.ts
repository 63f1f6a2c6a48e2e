import assert from 'node:assert/strict';
import { importsOf, packageOf } from '../support/imports.js';
import { type Package, packages, readManifest, sourcesIn } from '../support/repository.js';

/** Who stands on whom: a package may use those of lower rank only. */
const ranks: Readonly<Record<string, number>> = {
  '@sallyport/core': 0,
  '@sallyport/admin': 1,
  '@sallyport/pki': 1,
  '@sallyport/transport-mtls': 1,
  '@sallyport/registry-consul': 1,
  '@sallyport/registry-etcd': 1,
  '@sallyport/testing': 2,
  '@sallyport/gateway': 2,
  '@sallyport/sidecar': 2,
  sallyport: 3,
  '@sallyport/cli': 3,
};

describe('the packages', () => {
  for (const pkg of packages()) {
    const { name } = pkg.manifest;

    it(`${name} has a place in the order of packages`, () => {
      assert.ok(name in ranks, `give ${name} a rank in this test and in the design`);
    });

    it(`${name} uses only packages below it`, () => {
      const used = new Set([...Object.keys(pkg.manifest.dependencies ?? {}), ...importedPackages(pkg)]);
      const own = rankOf(name);
      const wrong = [...used].filter((other) => other !== name && isOurs(other) && rankOf(other) >= own);
      assert.deepEqual(wrong, []);
    });

    it(`${name} reaches others only by what they export, and itself only inside its folder`, () => {
      const wrong = imports(pkg).filter(({ file, specifier }) => !isPublic(specifier) || leaves(pkg, file, specifier));
      assert.deepEqual(wrong, []);
    });

    it(`${name} has no import cycle`, () => {
      assert.deepEqual(cycleIn(pkg), []);
    });
  }

  for (const folder of ['test', 'examples', 'bench']) {
    it(`${folder}/ uses the packages as a user does`, () => {
      const wrong = sourcesIn(folder).flatMap(({ path, text }) =>
        importsOf(text).flatMap(({ specifier }) =>
          (isPublic(specifier) && !specifier.includes('packages/')) || (folder === 'bench' && isShared(specifier))
            ? []
            : [`${path}: ${specifier}`],
        ),
      );
      assert.deepEqual(wrong, []);
    });
  }
});

function imports(pkg: Package) {
  return sourcesIn(`${pkg.folder}/src`).flatMap(({ path, text }) =>
    importsOf(text).map((found) => ({ file: path, ...found })),
  );
}

function importedPackages(pkg: Package): string[] {
  return imports(pkg).flatMap(({ specifier }) => packageOf(specifier) ?? []);
}

function isOurs(name: string): boolean {
  return name === 'sallyport' || name.startsWith('@sallyport/');
}

function rankOf(name: string): number {
  return ranks[name] ?? Number.NaN;
}

/** A path of one of our packages must be one that its manifest exports. */
function isPublic(specifier: string): boolean {
  const name = packageOf(specifier);
  if (name === undefined || !isOurs(name)) return true;
  const target = packages().find(({ manifest }) => manifest.name === name);
  return target !== undefined && `.${specifier.slice(name.length)}` in (target.manifest.exports ?? {});
}

/** The real servers: benchmarks get them from the tests. */
function isShared(specifier: string): boolean {
  const { name, exports = {} } = readManifest('test');
  return packageOf(specifier) === name && `.${specifier.slice(name.length)}` in exports;
}

function leaves(pkg: Package, file: string, specifier: string): boolean {
  return specifier.startsWith('.') && !resolve(file, specifier).startsWith(`${pkg.folder}/src/`);
}

/** `packages/x/src/a/b.ts` and `../c.js` → `packages/x/src/c.ts` */
function resolve(file: string, specifier: string): string {
  return new URL(specifier, `file:///${file}`).pathname.slice(1).replace(/\.js$/, '.ts');
}

/** The first cycle of modules that load each other, closed by its first module again; empty if there is none. */
function cycleIn(pkg: Package): string[] {
  const loads = new Map<string, string[]>();
  for (const { file, specifier, typeOnly } of imports(pkg)) {
    if (specifier.startsWith('.') && !typeOnly) loads.set(file, [...(loads.get(file) ?? []), resolve(file, specifier)]);
  }
  const done = new Set<string>();

  function follow(file: string, path: readonly string[]): string[] {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return [];
    for (const next of loads.get(file) ?? []) {
      const cycle = follow(next, [...path, file]);
      if (cycle.length > 0) return cycle;
    }
    done.add(file);
    return [];
  }

  for (const file of loads.keys()) {
    const cycle = follow(file, []);
    if (cycle.length > 0) return cycle;
  }
  return [];
}
