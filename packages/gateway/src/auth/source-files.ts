import type { ViolationId } from '@sallyport/core';
import { readSafeFile, type Violation, violation } from '@sallyport/core/spi';
import { HttpsJson } from './https-json.js';

/** What a handler is to be judged by cannot be used. */
export class SourceRefusal extends Error {
  override readonly name = 'SourceRefusal';
  readonly violations: readonly Violation[];

  constructor(violations: readonly Violation[]) {
    super('the source cannot be used');
    this.violations = violations;
  }
}

/** Throws SourceRefusal. */
export function refuse(id: ViolationId, path: string, problem: string): never {
  throw new SourceRefusal([violation(id, path, problem)]);
}

/** `ca` is a PEM file, `path` the option that names it. Rejects with SourceRefusal. */
export async function httpsFor(ca: string | undefined, timeoutMs: number, path: string): Promise<HttpsJson> {
  const pem = ca === undefined ? undefined : await pemFile(ca, path);
  try {
    return new HttpsJson({ ca: pem, timeoutMs });
  } catch (error) {
    return refuse(
      error instanceof RangeError ? 'tls-ca-empty' : 'tls-material-invalid',
      path,
      error instanceof Error ? error.message : 'it cannot be read',
    );
  }
}

/** Rejects with SourceRefusal where others could have written the file, too. */
export async function pemFile(file: string, path: string): Promise<string> {
  const { text, findings } = await readSafeFile(file, { private: false });
  const [first] = findings;
  if (text !== undefined) return text;
  return refuse(
    first?.danger === 'replaceable' ? 'tls-path-writable' : 'tls-file-unreadable',
    path,
    first?.problem ?? 'it cannot be read',
  );
}
