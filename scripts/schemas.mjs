/*
 * Writes docs/gateway.schema.json and docs/sidecar.schema.json, the JSON Schemas of gateway.yaml and sidecar.yaml, from the compiled
 * schemas. With --check it writes nothing and fails when one of the files is out of date.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, runAsProgram, ScriptError } from './process.mjs';

async function main(args) {
  const { gatewayFileJsonSchema } = await compiled('gateway');
  const { sidecarFileJsonSchema } = await compiled('sidecar');
  const schemas = { gateway: gatewayFileJsonSchema(), sidecar: sidecarFileJsonSchema() };
  for (const [name, schema] of Object.entries(schemas)) {
    const file = join(root, 'docs', `${name}.schema.json`);
    const text = `${JSON.stringify(schema, undefined, 1)}\n`;
    if (!args.includes('--check')) writeFileSync(file, text);
    else if (readIfThere(file) !== text)
      throw new ScriptError(`docs/${name}.schema.json is out of date: run node scripts/schemas.mjs`);
  }
}

function compiled(name) {
  return import(pathToFileURL(join(root, 'packages', name, 'dist', 'index.js')).href);
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

await runAsProgram(import.meta.url, main);
