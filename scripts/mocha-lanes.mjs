/*
 * node scripts/mocha-lanes.mjs [arguments of mocha]
 *
 * Runs the compiled tests in two processes side by side: those with Consul and etcd servers, which wait for leases and elections
 * most of the time, and all others. What the first print follows when the others have ended. The counts are added up in the file that
 * SALLYPORT_TEST_RESULTS names.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, root, run, runAsProgram } from './process.mjs';

const servers = ['integration/consul', 'integration/etcd', 'conformance/registry'].map(
  (folder) => `test/dist/${folder}/**/*.test.js`,
);

async function main(args) {
  const results = process.env.SALLYPORT_TEST_RESULTS ?? join(root, '.cache', 'test-results.json');
  const lane = (name) => ({
    file: `${results}.${name}`,
    env: { ...process.env, SALLYPORT_TEST_RESULTS: `${results}.${name}` },
  });
  const [waiting, others] = [lane('servers'), lane('others')];
  const mocha = [join(root, 'node_modules', 'mocha', 'bin', 'mocha.js'), ...args];
  for (const { file } of [waiting, others]) rmSync(file, { force: true });
  const [{ code: waitingCode, output }, othersCode] = await Promise.all([
    capture(process.execPath, [...mocha, ...servers], { env: waiting.env }),
    run(process.execPath, [...mocha, ...servers.flatMap((glob) => ['--ignore', glob]), 'test/dist/**/*.test.js'], {
      env: others.env,
    }),
  ]);
  console.log(output);
  // A lane that did not come to its end leaves no counts, and then there are none in all.
  const counts = [waiting, others].map(({ file }) =>
    existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined,
  );
  if (counts.every((one) => one !== undefined)) writeFileSync(results, `${JSON.stringify(counts.reduce(sum))}\n`);
  return othersCode || waitingCode;
}

function sum(a, b) {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
    durationMs: Math.max(a.durationMs, b.durationMs),
  };
}

await runAsProgram(import.meta.url, main);
