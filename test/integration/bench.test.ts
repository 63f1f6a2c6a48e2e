import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runNode } from '../support/child.js';
import { root } from '../support/repository.js';
import { temporaryFolder } from '../support/temporary-folder.js';

describe('the benchmark', () => {
  it('measures every peer at every concurrency, and says on what', async function () {
    this.timeout(40_000);
    using folder = temporaryFolder();
    const json = join(folder.path, 'result.json');

    const { code, stdout, stderr } = await runNode(
      [join(root, 'bench', 'dist', 'main.js'), 'rpc', '--rounds', '1', '--duration-ms', '50', '--json', json],
      { timeoutMs: 35_000 },
    );

    assert.equal(code, 0, stderr);
    const { environment, measurements } = JSON.parse(readFileSync(json, 'utf8'));
    assert.equal(environment.node, process.version);
    assert.deepEqual(measurements.map(({ peer, concurrency }: Measured) => `${peer} ${concurrency}`).sort(), [
      'raw grpc-js 1',
      'raw grpc-js 32',
      'raw grpc-js 8',
      'sallyport 1',
      'sallyport 32',
      'sallyport 8',
    ]);
    for (const { callsPerSecond, serverCpuUs } of measurements as Measured[]) {
      assert.ok(callsPerSecond > 0 && serverCpuUs > 0);
    }
    assert.match(stdout, /^\| sallyport +\| +32 \|/m);
  });

  it('refuses a scenario that does not exist', async () => {
    const { code, stderr } = await runNode([join(root, 'bench', 'dist', 'main.js'), 'warp']);

    assert.equal(code, 1);
    assert.match(stderr, /no scenario warp; there are: rpc/);
  });
});

interface Measured {
  readonly peer: string;
  readonly concurrency: number;
  readonly callsPerSecond: number;
  readonly serverCpuUs: number;
}
