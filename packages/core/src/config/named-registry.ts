import type { Violation } from '../policy/violation.js';
import { registry } from '../registry/registries.js';
import type { Registry } from '../registry/registry.js';
import { type FromFilesOptions, fromFiles } from '../tls/from-files.js';
import type { TlsSource } from '../tls/source.js';
import { unknownName } from './unknown-name.js';

/** Registries that a file may name beside `local`. */
export type Registries = Readonly<Record<string, (options: never) => Registry>>;

export interface NamedRegistryContext {
  /** Where it stands in the file, e.g. `gateway.registry`. */
  readonly path: string;
  readonly registries: Registries;
  /** Whose certificate a registry takes for its connection unless it names files of its own. */
  readonly identity: TlsSource;
  /** Takes what is wrong with the name. */
  readonly found: Violation[];
}

/** Makes `{ consul: {...} }` of a file, which has exactly one key. Undefined, with a violation more, when nobody knows the name. */
export function namedRegistry(
  entry: Readonly<Record<string, unknown>>,
  { path, registries, identity, found }: NamedRegistryContext,
): Registry | undefined {
  const [[kind, options]] = Object.entries(entry) as [[string, FromFilesOptions | undefined]];
  if (kind === 'local') return registry.local(options as never);
  const factory = Object.hasOwn(registries, kind) ? registries[kind] : undefined;
  if (!factory) {
    found.push(unknownName(path, kind, ['local', ...Object.keys(registries)]));
    return undefined;
  }
  const { tls: files, ...others } = (options ?? {}) as { readonly tls?: FromFilesOptions };
  return factory({ ...others, tls: files === undefined ? identity : fromFiles(files) } as never);
}
