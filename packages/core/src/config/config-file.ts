import { basename, resolve } from 'node:path';
import { readSafeFile } from '../files/file-safety.js';
import { type Violation, violation } from '../policy/violation.js';
import { parseYaml } from './yaml.js';

export interface ReadConfigFile {
  /** What stands in the file, of whatever type; undefined when there are violations. */
  readonly value: unknown;
  readonly violations: readonly Violation[];
}

/** Reads a configuration file in YAML that nobody else can write. Never throws. */
export async function readConfigFile(file: string): Promise<ReadConfigFile> {
  const { text, findings } = await readSafeFile(resolve(file), { private: false });
  if (text === undefined) {
    const violations = findings.map(({ danger, problem }) =>
      violation(danger === 'unreadable' ? 'config-file-invalid' : 'config-file-writable', file, problem),
    );
    return { value: undefined, violations };
  }
  const parsed = parseYaml(text);
  return 'problem' in parsed
    ? { value: undefined, violations: [violation('config-file-invalid', basename(file), parsed.problem)] }
    : { value: parsed.value, violations: [] };
}
