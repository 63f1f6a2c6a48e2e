import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { mesh } from '@sallyport/testing';
import { allow, defineContract, unary } from 'sallyport';
import { z } from 'zod';
import { startNode } from '../support/child.js';
import type { Report, Usage } from './resource-usage.js';

const program = fileURLToPath(new URL('resource-usage.js', import.meta.url));

/** Compiled code and what the runtime keeps of it still grow a little; a leak of 1 KB a call or 3 KB a connection would not fit. */
const HEAP_TOLERANCE_BYTES = 3 * 1024 * 1024;
const EXIT_WITHIN_MS = 2000;

describe('resources', () => {
  describe('after thousands of calls and connections', () => {
    let report: Report;
    let exitMs: number;
    let exitCode: number | null;

    before(async function () {
      this.timeout(60_000);
      await using child = startNode(['--expose-gc', program], { timeoutMs: 55_000 });
      const [line] = await child.output(/^\{.*\}$/m);
      const stoppedAt = Date.now();
      report = JSON.parse(line) as Report;
      exitCode = (await child.exited).code;
      exitMs = Date.now() - stoppedAt;
      const { calls, connections, refusedConnections } = report;
      console.log(`      ${calls} calls, ${connections} connections, ${refusedConnections} refused ones`);
      for (const moment of ['before', 'afterCalls', 'afterConnections', 'afterStop'] as const) {
        console.log(`      ${moment.padEnd(16)} ${summary(report[moment])}`);
      }
      console.log(`      exit ${exitMs} ms after stop()`);
    });

    it('holds no memory of calls', () => {
      assert.ok(growth(report.before, report.afterCalls) < HEAP_TOLERANCE_BYTES);
    });

    it('holds no memory of connections, refused ones among them', () => {
      assert.equal(report.refusedConnections, 100);
      assert.ok(growth(report.afterCalls, report.afterConnections) < HEAP_TOLERANCE_BYTES);
    });

    it('keeps no handle open', () => {
      assert.deepEqual(report.afterCalls.handles, report.before.handles);
      assert.deepEqual(report.afterConnections.handles, report.before.handles);
      assert.deepEqual(report.afterStop.handles, []);
    });

    it('keeps no file descriptor open', function () {
      if (report.before.descriptors === undefined) this.skip();
      assert.equal(report.afterCalls.descriptors, report.before.descriptors);
      assert.equal(report.afterConnections.descriptors, report.before.descriptors);
      // The listening socket and both ends of the connection.
      assert.equal(report.afterStop.descriptors, report.before.descriptors - 3);
    });

    it('lets the process end by itself', () => {
      assert.equal(exitCode, 0);
      assert.ok(exitMs < EXIT_WITHIN_MS, `it took ${exitMs} ms`);
    });
  });

  it('runs a test of two services in a moment, once warm', async () => {
    const Echo = defineContract('test.echo.v1.Echo', {
      say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
    });

    async function twoServices(): Promise<number> {
      const startedAt = performance.now();
      const world = mesh();
      const stock = world.service('stock', {
        authorize: [allow({ from: world.id('orders'), to: 'test.echo.v1.Echo/*' })],
      });
      const orders = world.service('orders', {
        authorize: [allow({ from: world.id('web'), to: 'test.echo.v1.Echo/*' })],
      });
      const onward = orders.client(Echo, { service: 'stock' });
      stock.handle(Echo, { say: ({ text }) => ({ text: `${text}!` }) });
      orders.handle(Echo, { say: (request) => onward.say(request) });
      await world.start();
      const web = await world.callerAs('web');
      const answer = await web.client(Echo, { service: 'orders' }).say({ text: 'hello' });
      await world.stop();
      assert.deepEqual(answer, { text: 'hello!' });
      return performance.now() - startedAt;
    }

    await twoServices();
    const durations = [];
    for (let i = 0; i < 9; i++) durations.push(await twoServices());
    const median = durations.sort((a, b) => a - b)[4] ?? Number.POSITIVE_INFINITY;

    console.log(`      a mesh of two services and a caller, a call through both, torn down: ${median.toFixed(1)} ms`);
    assert.ok(median < 1000);
  });
});

function growth(before: Usage, after: Usage): number {
  return after.heapBytes - before.heapBytes;
}

function summary({ heapBytes, handles, descriptors }: Usage): string {
  return `${(heapBytes / 1024 / 1024).toFixed(1)} MB heap, ${handles.length} handles, ${descriptors ?? '?'} descriptors`;
}
