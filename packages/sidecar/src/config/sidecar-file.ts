import { dirname, resolve } from 'node:path';
import { type FromFilesOptions, rules, type TlsSource, tls } from '@sallyport/core';
import { namedRegistry, type Registries, readConfigFile, resolveReferences } from '@sallyport/core/config';
import { parseOptions, type Violation, violation } from '@sallyport/core/spi';
import type { SidecarOptions } from '../options.js';
import { documentSchema, type SidecarDocument, type UpdateProcess } from './sidecar-document.js';

type Written = Readonly<Record<string, unknown>>;

export interface ReadSidecarConfigOptions {
  /** `sidecar.yaml`. Left out: all of it comes from `amend`. */
  readonly file?: string;
  /** Makes another document of what stands in the file, as a command line does. Left out: nothing is changed. */
  readonly amend?: (document: Written) => AmendedDocument;
  /** Registries that may be named beside `local`, e.g. `{ consul: registry.consul }`. Left out: none. */
  readonly registries?: Registries;
  /** Sources of certificates that `tls` may name beside the files, e.g. `{ workloadApi: tls.fromWorkloadApi }`. Left out: none. */
  readonly sources?: Sources;
}

export type Sources = Readonly<Record<string, (options: never) => TlsSource>>;

export interface AmendedDocument {
  readonly document: Written;
  readonly violations: readonly Violation[];
}

export interface ReadSidecarConfig {
  /** What could be made of it, although there may be violations; undefined when it is no document of this kind at all. */
  readonly options: SidecarOptions | undefined;
  /** What it was made of. */
  readonly document: Written | undefined;
  readonly update: UpdateProcess | undefined;
  /** Where to keep the id of the process that serves. */
  readonly pidFile: string | undefined;
  /** What `sidecar()` finds wrong with the options is not among these. */
  readonly violations: readonly Violation[];
}

/** Reads `sidecar.yaml` and makes the options of `sidecar()`. Never throws. */
export async function readSidecarConfig({
  file,
  amend = (document) => ({ document, violations: [] }),
  registries = {},
  sources = {},
}: ReadSidecarConfigOptions): Promise<ReadSidecarConfig> {
  const read = file === undefined ? { value: { version: 1 }, violations: [] } : await readConfigFile(file);
  if (read.violations.length > 0) return refused(read.violations);
  const amended = isObject(read.value) ? amend(read.value) : { document: read.value, violations: [] };
  const resolved = resolveReferences(amended.document, file === undefined ? process.cwd() : dirname(resolve(file)));
  const { value, violations } = parseOptions(documentSchema, resolved, 'sidecar');
  const found = [...amended.violations, ...violations];
  if (!value) return refused(found);
  if (value.update === undefined) found.push(violation('sidecar-update-undeclared', 'sidecar.update'));
  return {
    options: optionsOf(value, { registries, sources }, found),
    document: amended.document as Written,
    update: value.update,
    pidFile: value.pidFile,
    violations: found,
  };
}

/** Of a sidecar that nobody reaches, so that no SPIFFE ID follows from it. */
const NAMELESS = 'sidecar';

function optionsOf(
  document: SidecarDocument,
  { registries, sources }: { readonly registries: Registries; readonly sources: Sources },
  found: Violation[],
): SidecarOptions {
  const { version: _version, update: _update, pidFile: _pidFile, tls: files, authorize, registry, ...rest } = document;
  const identity = files === undefined ? undefined : sourceOf(files, sources);
  return {
    ...(document.inbound === undefined ? { name: NAMELESS } : {}),
    ...rest,
    ...(identity === undefined ? {} : { tls: identity }),
    ...(authorize === undefined
      ? {}
      : { authorize: typeof authorize === 'string' ? rules.fromFile(authorize) : authorize }),
    ...(registry === undefined || identity === undefined
      ? {}
      : { registry: namedRegistry(registry, { path: 'sidecar.registry', registries, identity, found }) }),
  } as SidecarOptions;
}

/** `{ workloadApi: {...} }`, or the names of files. */
function sourceOf(written: unknown, sources: Sources): TlsSource {
  const [[kind = '', options] = [], ...more] = isObject(written) ? Object.entries(written) : [];
  const factory = more.length === 0 && Object.hasOwn(sources, kind) ? sources[kind] : undefined;
  return factory ? factory((options ?? {}) as never) : tls.fromFiles(written as FromFilesOptions);
}

function isObject(value: unknown): value is Written {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refused(violations: readonly Violation[]): ReadSidecarConfig {
  return { options: undefined, document: undefined, update: undefined, pidFile: undefined, violations };
}
