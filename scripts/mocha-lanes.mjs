/*
 * node scripts/mocha-lanes.mjs [arguments of mocha]
 *
 * Runs the compiled tests in two processes side by side: those with programs of others, which wait for leases, elections and the
 * programs most of the time, and all others. What the first print follows when the others have ended. A file with a failure must then pass
 * twice in a row, alone: a machine that stood still for a second fails a test once, a defect again. What passed only then is named. A test
 * that hangs counts as failed; the files that its process had not come to are run in a new one.
 *
 * The counts are added up in the file that SALLYPORT_TEST_RESULTS names.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { root, run, runAsProgram, runInto } from './process.mjs';

const waitingTests = ['integration', 'conformance/registry', 'examples', 'packaging'].map(
  (folder) => `test/dist/${folder}/**/*.test.js`,
);
/** So often it must pass then. */
const passesAgain = 2;
/** Above this many files it is no noise. */
const mostFilesAgain = 5;

async function main(args) {
  const resultsFile = process.env.SALLYPORT_TEST_RESULTS ?? join(root, '.cache', 'test-results.json');
  const waitingLog = `${resultsFile}.waiting.log`;
  const mocha = [join(root, 'node_modules', 'mocha', 'bin', 'mocha.js'), ...args];
  const lane = async (name, mochaArgs, runner = run) => {
    const file = `${resultsFile}.${name}`;
    rmSync(file, { force: true });
    const env = { ...process.env, SALLYPORT_TEST_RESULTS: file };
    const code = await runner(process.execPath, [...mocha, ...mochaArgs], { env });
    const results = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
    if (!results?.remaining?.length) return { code, results };

    const rest = await lane(`${name}-rest`, results.remaining, runner);
    return { code: rest.code || 1, results: rest.results && merge(results, rest.results) };
  };
  rmSync(waitingLog, { force: true });
  const intoLog = (...call) => runInto(waitingLog, ...call);
  const showLog = () => existsSync(waitingLog) && process.stdout.write(readFileSync(waitingLog));
  process.once('SIGTERM', () => {
    showLog();
    process.exit(128 + constants.signals.SIGTERM);
  });

  const [waiting, others] = await Promise.all([
    lane('waiting', waitingTests, intoLog),
    lane('others', [...waitingTests.flatMap((glob) => ['--ignore', glob]), 'test/dist/**/*.test.js']),
  ]);
  showLog();
  // A lane that did not come to its end leaves no results, and then there are none in all.
  if (!waiting.results || !others.results) return others.code || waiting.code || 1;

  const first = merge(waiting.results, others.results);
  const again = filesToTryAgain(first.failures);
  if (again.length === 0) return report(resultsFile, first, others.code || waiting.code);

  let final = first;
  for (let round = 1; round <= passesAgain; round++) {
    console.log(`\nAlone, ${round} of ${passesAgain}: ${again.join(', ')}`);
    const alone = await lane('again', again);
    if (!alone.results) return alone.code || 1;
    final = merge({ ...first, failures: first.failures.filter(({ file }) => !again.includes(file)) }, alone.results);
    if (final.failures.length > 0) break;
  }
  final.unsteady = first.failures.filter(({ title }) => !final.failures.some((one) => one.title === title));
  return report(resultsFile, final, final.leftOpen || final.failures.length > 0 ? 1 : 0);
}

function filesToTryAgain(failures) {
  const files = [...new Set(failures.map(({ file }) => file))];
  if (files.length > mostFilesAgain) return [];
  return files.includes('') ? [] : files;
}

/** The results of both, those of the second where a file is in both. */
function merge(a, b) {
  return {
    files: { ...a.files, ...b.files },
    failures: [...a.failures, ...b.failures],
    durationMs: Math.max(a.durationMs, b.durationMs),
    leftOpen: a.leftOpen ?? b.leftOpen,
  };
}

function report(resultsFile, { files, failures, unsteady = [], durationMs }, code) {
  const total = (outcome) => Object.values(files).reduce((sum, counts) => sum + counts[outcome], 0);
  const counts = { passed: total('passed'), failed: failures.length, skipped: total('skipped') };
  writeFileSync(resultsFile, `${JSON.stringify({ ...counts, durationMs, failures, unsteady })}\n`);
  return counts.failed > 0 ? 1 : code;
}

await runAsProgram(import.meta.url, main);
