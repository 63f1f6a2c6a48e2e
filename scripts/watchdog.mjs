/*
 * A thread of the tests' process that sees when its event loop stands still: a loop that never awaits, or one that awaits only what is
 * already there. Mocha's own time limits are timers of that loop, so without this thread such a test would keep the run for ever.
 * It prints which test that was and where in the code it stood, writes the results so far, and ends the process.
 *
 * From reporter.mjs: a counter that the loop moves once a second (`workerData.beats`), the results so far and the test that begins.
 */
import { writeFileSync, writeSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { setInterval } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';

const tickMs = 1_000;
const { beats, path, patienceMs } = workerData;
/** For the debugger to find the code: it finds none while a call into the system is waited for. */
const findingMs = 5_000;

let running = { title: 'before the first test', file: '' };
let results = { files: {}, failures: [], remaining: [], durationMs: 0 };

parentPort.on('message', (message) => {
  running = message.running ?? running;
  results = message.results ?? results;
});

let seen = -1;
let still = 0;
for await (const _ of setInterval(tickMs)) {
  const beat = Atomics.load(beats, 0);
  still = beat === seen ? still + tickMs : 0;
  seen = beat;
  if (still >= patienceMs) break;
}
const stack = await Promise.race([
  stackOfMainThread(),
  after(findingMs, '    in no code of JavaScript: it waits for the system'),
]);
const error = `the event loop has not turned for ${patienceMs / 1_000} s\n${stack}`;
writeSync(2, `\nHUNG: ${running.title}\n${error}\n`); // console.log would ask the thread that hangs
const { files, failures, remaining, durationMs } = results;
if (path) {
  const total = (outcome) => Object.values(files).reduce((sum, counts) => sum + counts[outcome], 0);
  const counts = { passed: total('passed'), failed: failures.length + 1, skipped: total('skipped') };
  const all = { ...counts, durationMs, files, failures: [...failures, { ...running, error }], remaining };
  writeFileSync(path, `${JSON.stringify(all)}\n`);
}
process.kill(process.pid, 'SIGKILL');

async function stackOfMainThread() {
  const session = new Session();
  session.connectToMainThread();
  const urls = new Map();
  session.on('Debugger.scriptParsed', ({ params: { scriptId, url } }) => urls.set(scriptId, url));
  const paused = new Promise((resolve) => session.once('Debugger.paused', resolve));
  await session.post('Debugger.enable');
  await session.post('Debugger.pause');
  const { params } = await paused;
  return params.callFrames.map((frame) => lineOf(frame, urls.get(frame.location.scriptId))).join('\n');
}

function lineOf({ functionName, location }, url) {
  return `    at ${functionName || '(anonymous)'} (${url}:${location.lineNumber + 1}:${location.columnNumber + 1})`;
}

function after(ms, value) {
  return new Promise((resolve) => setTimeout(resolve, ms, value));
}
