import assert from 'node:assert/strict';

/**
 * Fails each test of the suite it is called in that leaves a rejected promise to nobody: outside of mocha, which only
 * swallows them, such a promise ends the process.
 */
export function refuseUnhandledRejections(): void {
  const unhandled: unknown[] = [];
  const remember = (reason: unknown) => unhandled.push(reason);
  beforeEach(() => {
    unhandled.length = 0;
    process.on('unhandledRejection', remember);
  });
  afterEach(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', remember);
    assert.deepEqual(unhandled, []);
  });
}
