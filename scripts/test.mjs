/*
 * npm test [-- options]
 *   --only <folder>   the tests of test/<folder> alone
 *   --coverage        measures how much of packages/*\/src the tests reach
 *   anything else     goes to mocha: --grep "refuses"
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, runAsProgram, ScriptError } from './process.mjs';
import { provideServers } from './servers.mjs';
import { setup } from './setup.mjs';

/** Runs the compiled tests. Resolves with the exit code and, if the run came to its end, the results as the reporter writes them. */
export async function runTests({
  node = process.execPath,
  coverage = false,
  only,
  mochaArgs = [],
  name = 'test',
} = {}) {
  const { env, missing } = await provideServers();
  if (missing.length > 0 && process.env.SALLYPORT_REQUIRE_SERVERS === '1') {
    throw new ScriptError(`Not on this machine, and not to be had from its packages: ${missing.join(', ')}`);
  }
  const resultsFile = join(root, '.cache', `${name}-results.json`);
  mkdirSync(join(root, '.cache'), { recursive: true });
  rmSync(resultsFile, { force: true });
  const args = [
    ...(coverage ? c8(only) : []),
    only ? join(root, 'node_modules', 'mocha', 'bin', 'mocha.js') : join(root, 'scripts', 'mocha-lanes.mjs'),
    ...['--reporter', join(root, 'scripts', 'reporter.mjs')],
    ...mochaArgs,
    ...(only ? [`test/dist/${only}/**/*.test.js`] : []),
  ];
  const code = await run(node, args, { env: { ...env, SALLYPORT_TEST_RESULTS: resultsFile } });
  const results = existsSync(resultsFile) ? JSON.parse(readFileSync(resultsFile, 'utf8')) : undefined;
  if (results) printFailures(results);
  if (missing.length > 0) console.log(`  not on this machine: ${missing.join(', ')}`);
  return { code, results };
}

/** Once more at the end, where they are found in a long log. */
function printFailures({ failures, unsteady = [] }) {
  const print = (kind) => (one) => console.log(`\n${kind}: ${one.title} (${one.file})\n${one.error.slice(0, 2_000)}`);
  unsteady.forEach(print('PASSED ONLY WHEN RUN AGAIN'));
  failures.forEach(print('FAILED'));
}

/** The thresholds (.c8rc.json) hold for the whole suite. */
function c8(only) {
  const c8Program = join(root, 'node_modules', 'c8', 'bin', 'c8.js');
  return [c8Program, ...(only ? ['--check-coverage=false'] : []), process.execPath];
}

function parse(args) {
  const options = { mochaArgs: [] };
  for (let i = 0; i < args.length; i++) {
    if (args[i] === '--coverage') options.coverage = true;
    else if (args[i] === '--only') options.only = args[++i];
    else options.mochaArgs.push(args[i]);
  }
  return options;
}

await runAsProgram(import.meta.url, async (args) => {
  await setup();
  const { code, results } = await runTests(parse(args));
  if (results) console.log(`\n${results.passed} passed, ${results.failed} failed, ${results.skipped} skipped`);
  return code;
});
