import { LineCounter, parseDocument } from 'yaml';

export type ParsedYaml = { readonly value: unknown } | { readonly problem: string };

/**
 * Reads one document of YAML 1.2 (core schema) into plain values. What could be read in two ways is a problem: a key that
 * stands twice, tags, aliases, a second document. Problems name the line and never quote it: it may hold what is secret.
 */
export function parseYaml(text: string): ParsedYaml {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    version: '1.2',
    schema: 'core',
    uniqueKeys: true,
    prettyErrors: false,
    // Silent would leave a second document out in silence.
    logLevel: 'error',
    lineCounter: lines,
  });
  const [wrong] = [...document.errors, ...document.warnings];
  if (wrong) return { problem: `line ${lines.linePos(wrong.pos[0]).line}: ${problems[wrong.code] ?? 'not YAML'}` };
  try {
    return { value: document.toJS({ maxAliasCount: 0 }) };
  } catch {
    return { problem: 'there are no aliases here: write what is meant' };
  }
}

const problems: Readonly<Record<string, string>> = {
  DUPLICATE_KEY: 'the key stands twice',
  MULTIPLE_DOCS: 'a second document begins',
  TAG_RESOLVE_FAILED: 'there are no tags here',
  TAB_AS_INDENT: 'a tab cannot indent',
  BAD_INDENT: 'the indentation does not fit',
  MISSING_CHAR: 'a character is missing',
};
