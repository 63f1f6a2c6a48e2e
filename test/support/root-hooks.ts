import assert from 'node:assert/strict';

const unhandled: unknown[] = [];
const found: string[] = [];
const files = new Set<string>();

/**
 * Fails a run in which a test has left a rejected promise to nobody: mocha only swallows such a promise, while outside of mocha
 * it ends the process. At the end and with the names of the tests, since a hook that fails earlier would end the run. Loaded
 * by .mocharc.json for the whole run. The reporter learns from the error in which files it was, if only roughly: what one test
 * leaves behind may fail while the next one runs.
 */
export const mochaHooks = {
  beforeAll() {
    process.on('unhandledRejection', (reason) => unhandled.push(reason));
  },
  async afterEach(this: Mocha.Context) {
    await new Promise((resolve) => setImmediate(resolve));
    for (const reason of unhandled.splice(0)) {
      found.push(`${this.currentTest?.fullTitle()}: ${reason}`);
      files.add(this.currentTest?.file ?? '');
    }
  },
  afterAll() {
    try {
      assert.deepEqual(found, [], 'a promise was rejected and nobody cared');
    } catch (error) {
      throw Object.assign(error as Error, { file: files.size === 1 ? [...files][0] : '' });
    }
  },
};
