export interface Import {
  readonly specifier: string;
  /** `import type` and `export type`: gone at run time. */
  readonly typeOnly: boolean;
}

const statement = /^(?:import|export)\s+(type\s+)?(?:[\w*{][^'";]*?\sfrom\s+)?['"]([^'"\n]+)['"]/gm;
const expression = /\bimport\(\s*['"]([^'"\n]+)['"]\s*\)/g;

/** What a formatted module imports, statically and dynamically, comments left out. */
export function importsOf(text: string): Import[] {
  const code = withoutComments(text);
  return [
    ...Array.from(code.matchAll(statement), ([, type, specifier = '']) => ({
      specifier,
      typeOnly: type !== undefined,
    })),
    ...Array.from(code.matchAll(expression), ([, specifier = '']) => ({ specifier, typeOnly: false })),
  ];
}

/** `@scope/name/sub` → `@scope/name`; undefined for relative paths and what Node brings along. */
export function packageOf(specifier: string): string | undefined {
  if (/^(\.|node:)/.test(specifier)) return undefined;
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

const commentOrString = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g;

export function withoutComments(text: string): string {
  return text.replace(commentOrString, (found) => (found.startsWith('/') ? '' : found));
}

/** What is left are names and punctuation: a rule about code then does not stumble over a sentence. */
export function withoutCommentsAndStrings(text: string): string {
  return text.replace(commentOrString, (found) => (found.startsWith('/') ? '' : "''"));
}
