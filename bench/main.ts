/*
 * npm run bench -- rpc [options]
 * npm run bench -- registry [--quick] [--json <file>]
 *   --quick             shorter and less exact, under a minute
 *   --rounds <n>        how often each peer is measured
 *   --duration-ms <n>   length of one measurement
 *   --in-flight <n,n>   calls in flight; 1,8,32 if left out
 *   --json <file>       where the result goes; bench/results/local/<scenario>.json if left out
 *   --profile <folder>  CPU profiles of every process go there
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { benchRegistry } from './registry.js';
import { benchRpc } from './rpc.js';

const scenarios = { rpc: benchRpc, registry: benchRegistry };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    'duration-ms': { type: 'string' },
    'in-flight': { type: 'string' },
    json: { type: 'string' },
    profile: { type: 'string' },
  },
});
const [name = 'rpc'] = positionals;
const run = Object.hasOwn(scenarios, name) ? scenarios[name as keyof typeof scenarios] : undefined;
if (!run) {
  console.error(`There is no scenario ${name}; there are: ${Object.keys(scenarios).join(', ')}.`);
  process.exitCode = 1;
} else {
  const local = fileURLToPath(new URL(`../results/local/${name}.json`, import.meta.url));
  await run({
    quick: values.quick,
    rounds: values.rounds === undefined ? undefined : whole(values.rounds),
    durationMs: values['duration-ms'] === undefined ? undefined : whole(values['duration-ms']),
    concurrencies: values['in-flight']?.split(',').map(whole),
    json: resolve(values.json ?? local),
    nodeFlags: values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${resolve(values.profile)}`],
  });
}

function whole(text: string): number {
  if (!/^[1-9]\d{0,6}$/.test(text)) throw new Error(`${text} is not a whole number above 0`);
  return Number(text);
}
