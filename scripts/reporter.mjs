/*
 * The reporter of `npm test`: what mocha's own prints, then the suites that were skipped, by name. Writes the counts of every file and
 * what failed to the file that SALLYPORT_TEST_RESULTS names, and ends a run that something left open keeps alive.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import Mocha from 'mocha';
import { root } from './process.mjs';

const lingerMs = 10_000;

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const files = {};
    const count = (test, outcome) => {
      const file = fileOf(test);
      files[file] ??= { passed: 0, failed: 0, skipped: 0 };
      files[file][outcome]++;
    };
    const skipped = new Map();
    runner.on('pass', (test) => count(test, 'passed'));
    runner.on('fail', (test) => count(test, 'failed'));
    runner.on('pending', (test) => {
      count(test, 'skipped');
      const suite = test.parent.titlePath().join(' › ') || test.file;
      skipped.set(suite, (skipped.get(suite) ?? 0) + 1);
    });
    runner.once('end', () => {
      for (const [suite, count] of skipped) console.log(`  skipped: ${suite} (${count})`);
      const { passes, failures, pending, duration } = this.stats;
      const results = { passed: passes, failed: failures, skipped: pending, durationMs: duration, files };
      results.failures = this.failures.map(failure);
      writeResults(results);
      endWhenStuck(results);
    });
  }
}

/** A failed hook is a test without a file of its own. */
function fileOf(test) {
  return relative(root, test.file ?? test.parent?.file ?? '');
}

function failure(test) {
  const { err } = test;
  return { title: test.titlePath().join(' › '), file: fileOf(test), error: String(err?.stack ?? err) };
}

function writeResults(results) {
  const path = process.env.SALLYPORT_TEST_RESULTS;
  if (path) writeFileSync(path, `${JSON.stringify(results)}\n`);
}

/** The timer itself keeps nothing alive, so it fires only when a test left a socket, a timer or a child behind. */
function endWhenStuck(results) {
  const timer = setTimeout(() => {
    const leftOpen = process.getActiveResourcesInfo().join(', ');
    console.error(`\nThe tests left something open: ${leftOpen}`);
    writeResults({ ...results, leftOpen });
    process.once('exit', () => (process.exitCode ||= 1)); // after mocha's own, which knows of no failure
    process.exit();
  }, lingerMs);
  timer.unref();
}
