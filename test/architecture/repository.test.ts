import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { runNode } from '../support/child.js';
import { packages, readManifest, root, trackedFiles } from '../support/repository.js';

describe('the repository', () => {
  it('says of every dependency what it is for', () => {
    const page = read('docs/decisions/dependencies.md');
    const unexplained = directDependencies().filter((name) => !page.includes(`| \`${name}\` |`));
    assert.deepEqual(unexplained, []);
  });

  it('explains no dependency that is gone', () => {
    const explained = [...read('docs/decisions/dependencies.md').matchAll(/^\| `([^`]+)` \|/gm)].map(
      ([, name]) => name ?? '',
    );
    const used = directDependencies();
    assert.deepEqual(
      explained.filter((name) => !used.includes(name)),
      [],
    );
  });

  it('explains every violation of the catalogue on a page', async () => {
    const check = await runNode([join(root, 'scripts/violations-doc.mjs'), '--check']);
    assert.equal(check.code, 0, check.stderr);
  });

  it('offers editors the schemas of gateway.yaml and sidecar.yaml as they are', async () => {
    const check = await runNode([join(root, 'scripts/schemas.mjs'), '--check']);
    assert.equal(check.code, 0, check.stderr);
  });

  it('links to nothing that is not there', () => {
    const pages = trackedFiles().filter((path) => path.endsWith('.md'));
    const broken = pages.flatMap((page) =>
      [...read(page).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
        .map(([, target = '']) => join(dirname(page), target))
        .filter((target) => !existsSync(join(root, target)))
        .map((target) => `${page}: ${target}`),
    );
    assert.deepEqual(broken, []);
  });

  it('names no path of the machine it was written on and no package mirror', () => {
    const forbidden = [
      /\/work\/(?:main|shared)\b/,
      /\bnpm[j]s\b/,
      /\bhttps?:\/\/(?:registry|deb|mirrors?|proxy)\.[\w-]+\./,
      /"resolved": "https?:/,
    ];
    const found = trackedFiles().filter((path) => forbidden.some((pattern) => pattern.test(read(path))));
    assert.deepEqual(found, []);
  });

  it('holds no private key', () => {
    const found = trackedFiles().filter((path) =>
      /-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}/.test(read(path)),
    );
    assert.deepEqual(found, []);
  });
});

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

function directDependencies(): string[] {
  const manifests = [
    ...packages().map(({ manifest }) => manifest),
    ...['.', 'test', 'examples', 'bench', 'bench/foreign'].map(readManifest),
  ];
  const names = manifests.flatMap((manifest) => Object.keys({ ...manifest.dependencies, ...manifest.devDependencies }));
  return [...new Set(names)].filter((name) => name !== 'sallyport' && !name.startsWith('@sallyport/')).sort();
}
