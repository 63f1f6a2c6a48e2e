import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { root } from '../support/repository.js';

export interface Example {
  /** `greeter.ts`: named by the page (```ts greeter.ts), so that others of the page can import it; else its number. */
  readonly file: string;
  readonly code: string;
  /** Cannot be compiled here, e.g. because it imports something we do not install. */
  readonly unchecked: boolean;
}

export interface Page {
  /** Relative to the root, e.g. `docs/tls.md`. */
  readonly path: string;
  /** `tls` */
  readonly name: string;
  readonly text: string;
  readonly examples: readonly Example[];
}

/** The documentation: docs/*.md and the pages at the root. */
export function pages(): Page[] {
  const documents = readdirSync(join(root, 'docs')).map((file) => `docs/${file}`);
  return ['README.md', 'SECURITY.md', 'CONTRIBUTING.md', ...documents]
    .filter((path) => path.endsWith('.md') && existsSync(join(root, path)))
    .map((path) => {
      const text = readFileSync(join(root, path), 'utf8');
      return { path, name: nameOf(path), text, examples: examplesIn(text) };
    });
}

export function page(path: string): Page {
  const found = pages().find((one) => one.path === path);
  if (!found) throw new Error(`there is no ${path}`);
  return found;
}

/** Prose only: what stands in code blocks is neither heading nor link. */
export function withoutCode(text: string): string {
  return text.replace(/^```.*?^```$/gms, '');
}

function nameOf(path: string): string {
  const name = basename(path, '.md');
  return path.startsWith('docs/') ? name : `root-${name}`;
}

function examplesIn(text: string): Example[] {
  return [...text.matchAll(/^```ts\b(.*)\n((?:.*\n)*?)^```$/gm)].map(([, info = '', code = ''], i) => {
    const words = info.trim().split(' ');
    const file = words.find((word) => word.endsWith('.ts')) ?? `example-${i + 1}.ts`;
    return { file, code, unchecked: words.includes('no-check') };
  });
}
