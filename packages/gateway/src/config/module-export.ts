import { isAbsolute } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readSafeFile, type Violation, violation } from '@sallyport/core/spi';

/**
 * What `/srv/shop/contracts.js#Billing.charge` names: an export of an ES module, and a property of it. The module is loaded
 * once in the life of the process, and only if nobody else can change what it does. Undefined, with a violation more in
 * `found`, where there is no such thing.
 */
export async function exportOf(reference: string, path: string, found: Violation[]): Promise<unknown> {
  const broken = (problem: string) => void found.push(violation('config-reference-broken', path, problem));
  const [file = '', names = ''] = reference.split('#', 2);
  if (!isAbsolute(file) || !/^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$/.test(names)) {
    return broken('expected a module and what it exports, e.g. ./contracts.js#Billing.charge');
  }
  const { findings } = await readSafeFile(file, { private: false });
  for (const { danger, problem } of findings) {
    found.push(violation(danger === 'unreadable' ? 'config-reference-broken' : 'config-file-writable', path, problem));
  }
  if (findings.length > 0) return undefined;
  try {
    const value = propertyOf(await import(pathToFileURL(file).href), names.split('.'));
    return value === undefined ? broken(`the module has no ${names}`) : value;
  } catch (error) {
    // The name of the error only: its message may hold what the module was working with.
    return broken(`the module cannot be loaded: it threw ${error instanceof Error ? error.name : 'something'}`);
  }
}

function propertyOf(module: object, names: readonly string[]): unknown {
  return names.reduce<unknown>(
    (at, name) =>
      typeof at === 'object' && at !== null && Object.hasOwn(at, name)
        ? (at as Record<string, unknown>)[name]
        : undefined,
    module,
  );
}
