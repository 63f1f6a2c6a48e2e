import assert from 'node:assert/strict';

const unhandled: unknown[] = [];

/**
 * Fails each test that leaves a rejected promise to nobody: mocha only swallows such a promise, while outside of mocha it
 * ends the process. Loaded by .mocharc.json for the whole run.
 */
export const mochaHooks = {
  beforeAll() {
    process.on('unhandledRejection', (reason) => unhandled.push(reason));
  },
  async afterEach() {
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(unhandled.splice(0), [], 'a promise was rejected and nobody cared');
  },
};
