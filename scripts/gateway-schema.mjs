/*
 * Writes docs/gateway.schema.json, the JSON Schema of gateway.yaml, from the compiled schema. With --check it writes nothing and
 * fails when the file is out of date.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, runAsProgram, ScriptError } from './process.mjs';

const file = join(root, 'docs', 'gateway.schema.json');
const compiled = join(root, 'packages', 'gateway', 'dist', 'index.js');

async function main(args) {
  const { gatewayFileJsonSchema } = await import(pathToFileURL(compiled).href);
  const text = `${JSON.stringify(gatewayFileJsonSchema(), undefined, 1)}\n`;
  if (!args.includes('--check')) writeFileSync(file, text);
  else if (readFileSync(file, 'utf8') !== text)
    throw new ScriptError('docs/gateway.schema.json is out of date: run node scripts/gateway-schema.mjs');
}

await runAsProgram(import.meta.url, main);
