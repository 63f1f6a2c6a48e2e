import assert from 'node:assert/strict';
import { withoutCommentsAndStrings } from '../support/imports.js';
import { packages, type SourceFile, sourcesIn } from '../support/repository.js';

interface Rule {
  readonly promise: string;
  readonly code: RegExp;
  /** Files that never meet the rule's subject use the same words for something else (`ca` of a certificate's constraints). */
  readonly subject?: RegExp;
  readonly allowed: RegExp;
  readonly atMost?: number;
}

/** What must stand in one place only: a second place would be a second opinion about security. */
const rules: readonly Rule[] = [
  {
    promise: 'only core/tls builds TLS contexts',
    code: /\bcreateSecureContext\b/,
    allowed: /^packages\/core\/src\/tls\//,
  },
  {
    promise: 'only core/tls decides about versions, ciphers, curves, trust and revocation of a connection',
    code: /\b(rejectUnauthorized|minVersion|maxVersion|ciphers|ecdhCurve|sigalgs|secureProtocol|secureOptions|ca|crl)\s*:/,
    subject: /\b(createServer|createSecureServer|connect|Agent|TLSSocket|createSecureContext|createSsl)\s*\(/,
    allowed: /^packages\/core\/src\/tls\//,
  },
  {
    promise: 'gRPC is told that a connection needs no TLS of its own in one place, behind our listener',
    code: /\bcreateInsecure\s*\(/,
    allowed: /^packages\/transport-mtls\/src\//,
    atMost: 1,
  },
  {
    promise: 'only the default logger, and the programs that run something, write to the terminal',
    code: /\bconsole\s*\.|\bprocess\.std(out|err)\b/,
    allowed: /^packages\/(core\/src\/(events\/console-logger|service\/run-service)|cli\/src\/main)\.ts$/,
  },
];

describe('what stands in one place', () => {
  for (const { promise, code, subject = /(?:)/, allowed, atMost = Number.POSITIVE_INFINITY } of rules) {
    it(promise, () => {
      const lines = allSources()
        .map(({ path, text }) => ({ path, text: withoutCommentsAndStrings(text) }))
        .filter(({ text }) => subject.test(text))
        .flatMap((file) => linesWith(code, file));
      const elsewhere = lines.filter(({ path }) => !allowed.test(path));
      assert.deepEqual(elsewhere, []);
      assert.ok(lines.length > 0, 'the rule finds nothing, so it guards nothing: mend its pattern');
      assert.ok(lines.length <= atMost, `found ${lines.length} times`);
    });
  }
});

function allSources(): SourceFile[] {
  return packages().flatMap(({ folder }) => sourcesIn(`${folder}/src`));
}

function linesWith(code: RegExp, { path, text }: SourceFile): { path: string; line: string }[] {
  return text
    .split('\n')
    .filter((line) => code.test(line) && !isDeclaration(line))
    .map((line) => ({ path, line: line.trim() }));
}

/** The field of an interface decides nothing. */
function isDeclaration(line: string): boolean {
  return /^\s*readonly \w+\??:/.test(line);
}
