/*
 * npm run fuzz [-- options]
 *   --sequences <n>   default 10,000,000
 *   --seed <n>        default: the time; it is printed, and repeats the run
 *   --from <n>        number of the first sequence, default 0
 *   --jobs <n>        processes, default one a core
 * What fails is made small and saved in test/fuzz/regressions.
 */
import { fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root, run, runAsProgram, ScriptError } from './process.mjs';

/** A process that has not moved for so long hangs in a sequence. */
const STALLED_MS = 60_000;
const REPORT_MS = 10_000;

/** Runs one share in a process of its own; resolves with what it found. */
function share({ seed, from, sequences }, onDone) {
  return new Promise((resolve, reject) => {
    const program = join(root, 'test', 'dist', 'fuzz', 'program.js');
    const child = fork(program, [seed, from, sequences].map(String), { execArgv: ['--max-semi-space-size=32'] });
    let result;
    let reached = 0;
    const stalled = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new ScriptError(`hangs with seed ${seed} in one of the 10,000 sequences from ${from + reached}`));
    }, STALLED_MS);
    child.on('message', (message) => {
      reached = message.done;
      result = message.result;
      stalled.refresh();
      onDone(reached);
    });
    child.once('exit', (code) => {
      clearTimeout(stalled);
      if (result) resolve(result);
      else
        reject(
          new ScriptError(`ended with ${code}, seed ${seed}, in one of the 10,000 sequences from ${from + reached}`),
        );
    });
  });
}

function parse(args) {
  const options = { sequences: 10_000_000, seed: Math.floor(Date.now() / 1000), from: 0, jobs: availableParallelism() };
  for (let i = 0; i < args.length; i += 2) {
    const name = args[i].replace(/^--/, '');
    const value = Number(args[i + 1]);
    if (!(name in options) || !Number.isInteger(value) || value < 0)
      throw new ScriptError(`not understood: ${args[i]}`);
    options[name] = value;
  }
  return options;
}

function sum(results, name) {
  const counts = {};
  for (const result of results) for (const [key, n] of result[name]) counts[key] = (counts[key] ?? 0) + n;
  return JSON.stringify(counts);
}

await runAsProgram(import.meta.url, async (args) => {
  const { sequences, seed, from, jobs } = parse(args);
  if ((await run('npx', ['tsc', '-b'])) !== 0) throw new ScriptError('the tests do not compile');
  console.log(`seed ${seed}, ${sequences} sequences from ${from}, ${jobs} processes`);
  const startedAt = performance.now();
  const done = Array.from({ length: jobs }, () => 0);
  const rate = () => `${Math.round((done.reduce((a, b) => a + b) / (performance.now() - startedAt)) * 1000)} a second`;
  const timer = setInterval(() => console.log(`  ${done.reduce((a, b) => a + b)} done, ${rate()}`), REPORT_MS);
  const each = Math.ceil(sequences / jobs);
  try {
    const results = await Promise.all(
      done.map((_, i) => {
        const mine = Math.min(each, sequences - i * each);
        return share({ seed, from: from + i * each, sequences: mine }, (reached) => (done[i] = reached));
      }),
    );
    const failures = results.flatMap((result) => result.failures);
    const rss = Math.max(...results.map(({ rssBytes }) => rssBytes)) / 2 ** 20;
    const seconds = (performance.now() - startedAt) / 1000;
    console.log(
      `${sequences} sequences in ${seconds.toFixed(0)} s, ${rate()}, at most ${rss.toFixed(0)} MiB a process`,
    );
    console.log(`ended with ${sum(results, 'endings')}; the reference was sure: ${sum(results, 'verdicts')}`);
    for (const { problem, file } of failures) console.error(`FAILED ${problem}: test/fuzz/regressions/${file}`);
    return failures.length > 0 ? 1 : 0;
  } finally {
    clearInterval(timer);
  }
});
