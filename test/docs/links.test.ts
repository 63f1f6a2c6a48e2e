import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { catalogue } from '@sallyport/core';
import { violation } from '@sallyport/core/spi';
import { root } from '../support/repository.js';
import { type Page, page, pages, withoutCode } from './pages.js';

describe('the links of the documentation', () => {
  // That the pages themselves exist is a promise of the repository, test/architecture.
  it('lead to headings that exist', () => {
    const dead = pages().flatMap((source) =>
      linksIn(source)
        .filter((link) => link.includes('#') && !leadsSomewhere(source, link))
        .map((link) => `${source.path}: ${link}`),
    );
    assert.deepEqual(dead, []);
  });

  it('lead from the map to every page of docs/', () => {
    const map = page('docs/README.md');
    const linked = linksIn(map).map((link) => link.split('#')[0]);
    const missing = pages().filter(
      ({ path }) => path.startsWith('docs/') && path !== map.path && !linked.includes(path.slice('docs/'.length)),
    );
    assert.deepEqual(
      missing.map(({ path }) => path),
      [],
    );
  });

  it('lead from every violation to its heading', () => {
    const dead = Object.keys(catalogue)
      .map((id) => `docs/${violation(id as keyof typeof catalogue, 'x').docs}`)
      .filter((link) => !leadsSomewhere({ path: 'x' }, link));
    assert.deepEqual(dead, []);
  });

  it('lead from the fixes of the catalogue to pages that exist', () => {
    const named = Object.values(catalogue).flatMap(({ fix }) => fix.match(/docs\/[\w-]+\.md/g) ?? []);
    assert.ok(named.length > 0);
    assert.deepEqual(
      named.filter((path) => !existsSync(join(root, path))),
      [],
    );
  });
});

/** Relative links; what lies on other hosts is not ours to check. */
function linksIn({ text }: Page): string[] {
  const links = [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
  return links.filter((link) => !/^[a-z]+:/.test(link));
}

function leadsSomewhere(from: { readonly path: string }, link: string): boolean {
  const [file = '', anchor] = link.split('#');
  const path = file === '' ? from.path : normalize(join(dirname(from.path), file));
  if (path.startsWith('..') || !existsSync(join(root, path))) return false;
  return anchor !== undefined && anchorsOf(page(path)).has(anchor);
}

/** As GitHub makes them: lower case, punctuation dropped, spaces to hyphens, repeated ones numbered. */
function anchorsOf({ text }: Page): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of withoutCode(text).matchAll(/^#{1,6} +(.+)$/gm)) {
    const slug = heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    let anchor = slug;
    for (let i = 1; anchors.has(anchor); i++) anchor = `${slug}-${i}`;
    anchors.add(anchor);
  }
  return anchors;
}
