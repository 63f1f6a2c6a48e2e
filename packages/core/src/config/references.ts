import { resolve } from 'node:path';
import { secret } from '../secrets/secret.js';

/**
 * What texts of a configuration file stand for, wherever they are: `env:NAME` and `file:PATH` name a secret that is never in
 * the file itself; what begins with `./` or `../` is a path from the folder of the file. All else is left as it is.
 */
export function resolveReferences(value: unknown, folder: string): unknown {
  if (typeof value === 'string') return resolveText(value, folder);
  if (Array.isArray(value)) return value.map((element) => resolveReferences(element, folder));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, resolveReferences(inner, folder)]));
}

function resolveText(text: string, folder: string): unknown {
  if (text.startsWith('env:')) return secret.env(text.slice('env:'.length));
  if (text.startsWith('file:')) return secret.file(resolve(folder, text.slice('file:'.length)));
  return /^\.{1,2}\//.test(text) ? resolve(folder, text) : text;
}
