/*
 * npm run bench -- rpc [options]
 * npm run bench -- registry [--quick] [--out <folder>]
 * npm run bench -- pki [--quick] [--out <folder>]
 * npm run bench -- gateway [--quick] [--peers <name,name>] [--node <version>] [--rounds <n>] [--duration-ms <n>] [--out <folder>]
 * npm run bench -- sidecar [--quick] [--peers <name,name>] [--node <version>] [--rounds <n>] [--duration-ms <n>] [--connections <n>]
 *   --quick              shorter and less exact, under two minutes
 *   --peers <name,name>  some of them
 *   --parts <name,name>  some of unary, streams and idle
 *   --node <version>     runs every peer on that Node, e.g. 24
 *   --rounds <n>         how often each peer is measured
 *   --duration-ms <n>    length of one measurement
 *   --in-flight <n,n>    calls in flight
 *   --connections <n>    idle connections
 *   --out <folder>       where <scenario>.md, .json and .svg go; bench/results/local if left out
 *   --profile <folder>   CPU profiles of every process go there
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { benchGateway } from './gateway.js';
import { benchPki } from './pki.js';
import { benchRegistry } from './registry.js';
import { benchRpc } from './rpc.js';
import { benchSidecar } from './sidecar.js';

const scenarios = {
  rpc: benchRpc,
  registry: benchRegistry,
  pki: benchPki,
  gateway: benchGateway,
  sidecar: benchSidecar,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    peers: { type: 'string' },
    parts: { type: 'string' },
    node: { type: 'string' },
    rounds: { type: 'string' },
    'duration-ms': { type: 'string' },
    'in-flight': { type: 'string' },
    connections: { type: 'string' },
    out: { type: 'string' },
    profile: { type: 'string' },
  },
});
const [name = 'rpc'] = positionals;
const run = Object.hasOwn(scenarios, name) ? scenarios[name as keyof typeof scenarios] : undefined;
try {
  if (!run) throw new Error(`There is no scenario ${name}; there are: ${Object.keys(scenarios).join(', ')}.`);
  await run({
    quick: values.quick,
    peers: values.peers?.split(','),
    parts: values.parts?.split(','),
    node: values.node,
    rounds: whole(values.rounds),
    durationMs: whole(values['duration-ms']),
    concurrencies: values['in-flight']?.split(',').map(wholeNumber),
    connections: whole(values.connections),
    out: values.out === undefined ? fileURLToPath(new URL('../results/local', import.meta.url)) : resolve(values.out),
    nodeFlags: values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${resolve(values.profile)}`],
    onProgress: (text) => console.error(text),
  });
} catch (error) {
  console.error(error instanceof Error ? messagesOf(error) : error);
  process.exitCode = 1;
}

function whole(text: string | undefined): number | undefined {
  return text === undefined ? undefined : wholeNumber(text);
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,6}$/.test(text)) throw new Error(`${text} is not a whole number above 0`);
  return Number(text);
}

function messagesOf({ message, cause }: Error): string {
  return cause instanceof Error ? `${message}: ${messagesOf(cause)}` : message;
}
