import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { runNode, startNode } from '../../../support/child.js';

const program = fileURLToPath(new URL('./running-service.js', import.meta.url));

describe('runService', () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`drains and ends with exit code 0 on ${signal}`, async () => {
      await using child = startNode([program, 'well']);
      await child.output(/-> ready/);

      const { code, signal: by, stdout } = await child.stop(signal);

      assert.deepEqual([code, by], [0, null]);
      assert.match(stdout, /-> draining[\s\S]*-> stopped[\s\S]*returned/);
    });
  }

  it('waits for a running call, and a second signal ends the process at once', async () => {
    await using child = startNode([program, 'busy']);
    await child.output(/serving/);
    process.kill(child.pid, 'SIGTERM');
    await child.output(/-> draining/);

    const { code, stdout } = await child.stop('SIGTERM');

    assert.equal(code, 1);
    assert.doesNotMatch(stdout, /-> stopped/);
  });

  it('keeps a service that only calls alive until the signal', async () => {
    await using child = startNode([program, 'client']);
    await child.output(/-> ready/);

    const { code, stdout } = await child.stop();

    assert.equal(code, 0);
    assert.match(stdout, /returned/);
  });

  it('ends with exit code 1 and every violation on stderr when the service refuses to start', async () => {
    const { code, stdout, stderr } = await runNode([program, 'insecure']);

    assert.equal(code, 1);
    assert.match(stderr, /server-client-certificate-optional/);
    assert.match(stderr, /option-invalid/);
    assert.match(stdout, /-> stopped[\s\S]*returned/);
    assert.doesNotMatch(stdout, /listening/);
  });

  it('listens to the signals it is told to', async () => {
    await using child = startNode([program, 'usr2']);
    await child.output(/-> ready/);

    const { code, stdout } = await child.stop('SIGUSR2');

    assert.equal(code, 0);
    assert.match(stdout, /returned/);
  });
});
