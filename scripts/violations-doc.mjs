/*
 * Writes docs/violations.md from the compiled catalogue. With --check it writes nothing and fails when the page is out of date.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, runAsProgram, ScriptError } from './process.mjs';

const page = join(root, 'docs', 'violations.md');
const compiled = join(root, 'packages', 'core', 'dist', 'policy', 'catalogue.js');

const introduction = `# Violations

A configuration that is not secure does not start. \`service.start()\` rejects with one \`InsecureConfigurationError\`, whose \`violations\`
hold everything that was found, the gravest first; nothing was bound, registered or sent. Each has one of the ids below, the path
of the option, what is wrong with it and how to mend it. Ids are stable; the wording may improve. None can be waived.

This page is made from the catalogue in the code by \`node scripts/violations-doc.mjs\`.
`;

async function main(args) {
  const { catalogue } = await import(pathToFileURL(compiled).href);
  const text = violationsPage(catalogue);
  if (!args.includes('--check')) writeFileSync(page, text);
  else if (readIfThere(page) !== text)
    throw new ScriptError('docs/violations.md is out of date: run node scripts/violations-doc.mjs');
}

function violationsPage(catalogue) {
  const ids = Object.keys(catalogue);
  const index = ids.map((id) => `| [\`${id}\`](#${id}) | ${catalogue[id].severity} |`);
  return `${[introduction, '| id | severity |', '| --- | --- |', ...index, '', ...ids.map((id) => section(id, catalogue[id]))].join('\n')}`;
}

function section(id, { severity, problem, fix }) {
  return `## ${id}\n\n**${severity}:** ${escaped(problem)}\n\n**fix:** ${escaped(fix)}\n`;
}

/** The texts are plain: what Markdown would take for markup is not meant as such. */
function escaped(text) {
  return text.replace(/[<>*_[\]]/g, '\\$&');
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

await runAsProgram(import.meta.url, main);
