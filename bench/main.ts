/*
 * npm run bench -- rpc [options]
 *   --quick        shorter and less exact, under a minute
 *   --json <file>  where the result goes; bench/results/local/<scenario>.json if left out
 *   --profile <folder>  CPU profiles of every process go there
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { benchRpc } from './rpc.js';

const scenarios = { rpc: benchRpc };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, json: { type: 'string' }, profile: { type: 'string' } },
});
const [name = 'rpc'] = positionals;
const run = name in scenarios ? scenarios[name as keyof typeof scenarios] : undefined;
if (!run) {
  console.error(`There is no scenario ${name}; there are: ${Object.keys(scenarios).join(', ')}.`);
  process.exitCode = 1;
} else {
  const local = fileURLToPath(new URL(`../results/local/${name}.json`, import.meta.url));
  await run({
    quick: values.quick,
    json: resolve(values.json ?? local),
    nodeFlags: values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${resolve(values.profile)}`],
  });
}
