import { isDeepStrictEqual } from 'node:util';

type Document = Readonly<Record<string, unknown>>;

/**
 * Which keys of a configuration have changed. Throws Error, which names them, when some of these cannot change while the program runs:
 * those that are not `changeable`.
 */
export function changedKeys(before: Document, after: Document, changeable: readonly string[]): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  const changed = [...keys].filter((key) => !isDeepStrictEqual(before[key], after[key]));
  const fixed = changed.filter((key) => !changeable.includes(key));
  if (fixed.length > 0) throw new Error(`a change of ${fixed.join(', ')} needs a restart`);
  return changed;
}
