/*
 * The reporter of `npm test`: what mocha's own prints, then the suites that were skipped, by name. Writes the counts and times of every
 * file and what failed to the file that SALLYPORT_TEST_RESULTS names. Ends a run that something left open keeps alive, one that stands
 * still, and one in which so much fails that the rest would say nothing new.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { Worker } from 'node:worker_threads';
import Mocha from 'mocha';
import { root } from './process.mjs';

const lingerMs = 10_000;
/** The longest that a test may keep the event loop to itself. */
const patienceMs = Number(process.env.SALLYPORT_TEST_PATIENCE_MS ?? 60_000);
const mostFailures = 50;

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const files = {};
    const count = (test, outcome) => {
      const file = fileOf(test);
      files[file] ??= { passed: 0, failed: 0, skipped: 0, durationMs: 0 };
      const counts = files[file];
      counts[outcome]++;
      counts.durationMs += test.duration ?? 0;
    };
    const skipped = new Map();
    runner.on('pass', (test) => count(test, 'passed'));
    runner.on('fail', (test) => {
      count(test, 'failed');
      if (this.failures.length < mostFailures) return;
      console.error(`\n${mostFailures} tests have failed; no more are run.`);
      runner.abort();
    });
    runner.on('pending', (test) => {
      count(test, 'skipped');
      const suite = test.parent.titlePath().join(' › ') || test.file;
      skipped.set(suite, (skipped.get(suite) ?? 0) + 1);
    });
    watch(runner, () => ({ files, failures: this.failures.map(failure), durationMs: Date.now() - this.stats.start }));
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

/** The hook for all tests says in which file it found something (test/support/root-hooks.ts). */
function failure(test) {
  const { err } = test;
  const file = err?.file ? relative(root, err.file) : fileOf(test);
  return { title: test.titlePath().join(' › '), file, error: String(err?.stack ?? err) };
}

/** Tells the watchdog what runs and, after every file, what came out so far. */
function watch(runner, resultsSoFar) {
  const beats = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  setInterval(() => Atomics.add(beats, 0, 1), 1_000).unref();
  const watchdog = new Worker(new URL('watchdog.mjs', import.meta.url), {
    workerData: { beats, path: process.env.SALLYPORT_TEST_RESULTS, patienceMs },
  });
  watchdog.unref();
  const remaining = new Set(runner.suite.suites.map(fileOf));
  const starts = (runnable) => {
    const file = fileOf(runnable);
    if (file) watchdog.postMessage({ running: { title: runnable.titlePath().join(' › '), file } });
  };
  runner.on('test', starts);
  runner.on('hook', starts);
  runner.on('suite', (suite) => {
    if (!suite.parent?.root) return;
    remaining.delete(fileOf(suite));
    watchdog.postMessage({ results: { ...resultsSoFar(), remaining: [...remaining] } });
  });
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
