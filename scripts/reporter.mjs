/*
 * The reporter of `npm test`: what mocha's own prints, then the suites that were skipped, by name. Writes the counts to the file
 * that SALLYPORT_TEST_RESULTS names, and ends a run that something left open keeps alive.
 */
import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

const lingerMs = 10_000;

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const skipped = new Map();
    runner.on('pending', (test) => {
      const suite = test.parent.titlePath().join(' › ') || test.file;
      skipped.set(suite, (skipped.get(suite) ?? 0) + 1);
    });
    runner.once('end', () => {
      for (const [suite, count] of skipped) console.log(`  skipped: ${suite} (${count})`);
      writeResults(this.stats);
      endWhenStuck();
    });
  }
}

function writeResults({ passes, failures, pending, duration }) {
  const path = process.env.SALLYPORT_TEST_RESULTS;
  if (!path) return;
  const results = { passed: passes, failed: failures, skipped: pending, durationMs: duration };
  writeFileSync(path, `${JSON.stringify(results)}\n`);
}

/** The timer itself keeps nothing alive, so it fires only when a test left a socket, a timer or a child behind. */
function endWhenStuck() {
  const timer = setTimeout(() => {
    console.error(`\nThe tests left something open: ${process.getActiveResourcesInfo().join(', ')}`);
    process.once('exit', () => (process.exitCode ||= 1)); // after mocha's own, which knows of no failure
    process.exit();
  }, lingerMs);
  timer.unref();
}
