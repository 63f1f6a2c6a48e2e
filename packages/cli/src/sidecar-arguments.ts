import { type Violation, violation } from '@sallyport/core/spi';
import type { AmendedDocument } from '@sallyport/sidecar';
import { amendedDocument, type Document } from './sidecar-amendment.js';
import { type GivenFlags, type SidecarFlag, type SidecarFlagValues, sidecarFlags } from './sidecar-flags.js';
import { mendedCommand, namedByFlag } from './sidecar-mending.js';

export interface ReadSidecarFlags {
  readonly file: string | undefined;
  /** Puts what the flags say in the place of what stands in the file. */
  readonly amend: (document: Document) => AmendedDocument;
  /** The same violations with the names that whoever has no file knows: those of the flags and variables. */
  readonly inWords: (violations: readonly Violation[]) => readonly Violation[];
  /** The command line that all of these are mended in; undefined where one of them only its author can mend. */
  readonly mended: (violations: readonly Violation[]) => string | undefined;
  readonly violations: readonly Violation[];
}

type Environment = Readonly<Record<string, string | undefined>>;

const VARIABLES = 'MICRO_PROXY_';

/** Flags come before the variables of the environment (`MICRO_PROXY_ADDRESS`), both before the file. */
export function readSidecarFlags(flags: SidecarFlagValues, env: Environment): ReadSidecarFlags {
  const variables = valuesOf(env);
  const values = { ...variables.values, ...flags };
  const nameOf = (flag: SidecarFlag) =>
    flags[flag] === undefined && values[flag] !== undefined ? variableOf(flag) : `--${flag}`;
  const given: GivenFlags = { values, nameOf };
  const key = values.proxy_tls_key_file;
  const violations = [...variables.violations];
  if (key !== undefined && /BEGIN|\n/.test(key)) {
    violations.push(violation('secret-in-arguments', nameOf('proxy_tls_key_file')));
  }
  return {
    violations,
    file: values.config,
    amend: (document) => amendedDocument(document, given),
    inWords: (found) => (values.config === undefined ? found.map((one) => namedByFlag(one, given)) : found),
    mended: (found) => mendedCommand(found, given),
  };
}

function variableOf(flag: SidecarFlag): string {
  return flag === 'config' ? `${VARIABLES}CONFIG` : `MICRO_${flag.toUpperCase()}`;
}

function valuesOf(env: Environment) {
  const known = new Map((Object.keys(sidecarFlags) as SidecarFlag[]).map((flag) => [variableOf(flag), flag]));
  const values: Partial<Record<SidecarFlag, string>> = {};
  const violations: Violation[] = [];
  for (const [variable, value] of Object.entries(env)) {
    if (!variable.startsWith(VARIABLES) || value === undefined) continue;
    const flag = known.get(variable);
    if (flag === undefined) violations.push(violation('option-unknown', variable));
    else values[flag] = value;
  }
  return { values, violations };
}
