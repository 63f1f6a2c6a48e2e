import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Exit, runNode } from '../support/child.js';
import { root } from '../support/repository.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const program = join(root, 'bench', 'dist', 'main.js');

/** Need what `npm ci` installs. */
const ours = ['raw grpc-js', 'sallyport', 'node:http2', 'frames only'];
/** Need bench/foreign, some of them a newer Node as well; both are fetched if they are not there. */
const foreign = ['nice-grpc', 'Nest gRPC', 'connect-node', 'undici', 'moleculer TCP'];

describe('the benchmark', () => {
  let exit: Exit;
  let report: Report;
  let markdown: string;
  let plot: string;

  before(async function () {
    this.timeout(300_000); // the first time it installs
    using folder = temporaryFolder();
    const brief = ['--rounds', '1', '--duration-ms', '40', '--in-flight', '1,8', '--connections', '5'];
    exit = await runNode([program, 'rpc', ...brief, '--out', folder.path], {
      env: { NODE_V8_COVERAGE: undefined },
      timeoutMs: 290_000,
    });
    const read = (name: string) => {
      const path = join(folder.path, name);
      return existsSync(path) ? readFileSync(path, 'utf8') : '';
    };
    report = JSON.parse(read('rpc.json') || '{}');
    markdown = read('rpc.md');
    plot = read('rpc-unary.svg');
  });

  it('comes to its end, and says on what it has measured', () => {
    assert.equal(exit.code, 0, exit.stderr);
    assert.equal(report.environment.node, process.version);
    assert.ok(report.environment.packages.sallyport);
  });

  for (const peer of [...ours, ...foreign]) {
    it(`measures the calls of ${peer}, whose answers are right`, function () {
      assert.equal(exit.code, 0, exit.stderr);
      if (foreign.includes(peer) && report.absent.some((one) => one.peer === peer)) this.skip();

      const rows = report.unary.summary.filter((row) => row.peer === peer);

      assert.deepEqual(
        rows.map(({ concurrency }) => concurrency),
        [1, 8],
      );
      for (const { callsPerSecond, clientCpuUs, serverCpuUs, clientRssMb, serverRssMb } of rows) {
        for (const { median } of [callsPerSecond, clientCpuUs, serverCpuUs, clientRssMb, serverRssMb]) {
          assert.ok(median > 0);
        }
      }
      assert.ok(markdown.includes(`| ${peer} `));
      assert.ok(plot.includes(`>${peer}`));
    });
  }

  it('says which peer has no TLS, in the table and in the plot', function () {
    if (report.absent.some(({ peer }) => peer === 'moleculer TCP')) this.skip();

    const plain = report.unary.summary.filter(({ tls }) => tls === 'none').map(({ peer }) => peer);

    assert.deepEqual([...new Set(plain)], ['moleculer TCP']);
    assert.match(markdown, /^\| moleculer TCP +\| none +\| v/m);
    assert.match(plot, />moleculer TCP, no TLS</);
  });

  it('draws finite points only', () => {
    assert.match(plot, /^<svg /);
    assert.doesNotMatch(plot, /NaN|Infinity|undefined/);
  });

  it('measures small and large messages of server streams', () => {
    const found = report.streams.summary.map(({ peer, messages }) => `${peer}, ${messages}`);
    assert.deepEqual(found, [
      'raw grpc-js, 200 B, JSON',
      'sallyport, 200 B, JSON',
      'node:http2, 200 B, JSON',
      'raw grpc-js, 200 B, bytes',
      'sallyport, 200 B, bytes',
      'node:http2, 200 B, bytes',
      'raw grpc-js, 64 KiB, bytes',
      'sallyport, 64 KiB, bytes',
      'node:http2, 64 KiB, bytes',
    ]);
    for (const { messagesPerSecond } of report.streams.summary) assert.ok(messagesPerSecond.median > 0);
  });

  it('measures what idle connections keep on either side', () => {
    const found = report.idle.map(({ subject, growth }) => `${subject}: ${Object.keys(growth).join(', ')}`);
    assert.deepEqual(found, ['raw grpc-js: orders, web', 'sallyport: orders, web']);
  });

  it('names no folder of this machine in its results', () => {
    assert.ok(!JSON.stringify(report).includes(root));
    assert.ok(!markdown.includes(root));
  });

  for (const [what, args, message] of [
    ['scenario', ['warp'], /no scenario warp; there are: rpc/],
    ['peer', ['rpc', '--peers', 'warp'], /no peer warp; there are: raw grpc-js, sallyport/],
    ['part', ['rpc', '--parts', 'warp'], /no part warp; there are: unary, streams, idle/],
  ] as const) {
    it(`refuses a ${what} that does not exist`, async () => {
      const { code, stderr } = await runNode([program, ...args]);

      assert.equal(code, 1);
      assert.match(stderr, message);
    });
  }
});

interface Report {
  readonly environment: { readonly node: string; readonly packages: Readonly<Record<string, string>> };
  readonly absent: readonly { readonly peer: string; readonly reason: string }[];
  readonly unary: { readonly summary: readonly UnaryRow[] };
  readonly streams: {
    readonly summary: readonly {
      readonly peer: string;
      readonly messages: string;
      readonly messagesPerSecond: Spread;
    }[];
  };
  readonly idle: readonly { readonly subject: string; readonly growth: Readonly<Record<string, unknown>> }[];
}

interface UnaryRow {
  readonly peer: string;
  readonly tls: string;
  readonly concurrency: number;
  readonly callsPerSecond: Spread;
  readonly clientCpuUs: Spread;
  readonly serverCpuUs: Spread;
  readonly clientRssMb: Spread;
  readonly serverRssMb: Spread;
}

interface Spread {
  readonly median: number;
}
