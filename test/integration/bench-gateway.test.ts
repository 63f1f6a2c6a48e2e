import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Exit, runNode } from '../support/child.js';
import { root } from '../support/repository.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const program = join(root, 'bench', 'dist', 'main.js');
const gateways = ['fastify + grpc-js', 'sallyport', 'fastify http-proxy', 'nginx', 'moleculer-web'];

describe('the benchmark of the gateway', () => {
  let exit: Exit;
  let report: Report;
  let markdown: string;

  before(async function () {
    this.timeout(300_000); // the first time it installs
    using folder = temporaryFolder();
    const brief = ['--rounds', '1', '--duration-ms', '100'];
    exit = await runNode([program, 'gateway', ...brief, '--out', folder.path], {
      env: { NODE_V8_COVERAGE: undefined },
      timeoutMs: 290_000,
    });
    const read = (name: string) => {
      const path = join(folder.path, name);
      return existsSync(path) ? readFileSync(path, 'utf8') : '';
    };
    report = JSON.parse(read('gateway.json') || '{}');
    markdown = read('gateway.md');
  });

  for (const gateway of gateways) {
    it(`measures the requests through ${gateway}, whose answers are right`, function () {
      assert.equal(exit.code, 0, exit.stderr);
      if (gateway !== 'sallyport' && report.absent.some(({ peer }) => peer === gateway)) this.skip();

      const row = report.throughput.summary.find((one) => one.gateway === gateway);

      assert.ok(row);
      assert.ok(row.requestsPerSecond.median > 0);
      assert.ok(row.serviceCpuUs.median > 0);
      assert.ok(row.gatewayRssMb.median > 0);
      assert.ok(markdown.includes(`| ${gateway} `));
    });
  }

  it('says who asks for no token, and what is not encrypted', () => {
    assert.equal(exit.code, 0, exit.stderr);
    assert.match(markdown, /^\| sallyport +\| token +\| gRPC, mTLS +\|/m);
    if (!report.absent.some(({ peer }) => peer === 'moleculer-web')) {
      assert.match(markdown, /^\| moleculer-web +\| nothing +\| TCP, no TLS +\|/m);
    }
  });

  it('measures what the gateway adds to a call, and says which aims are reached', () => {
    assert.equal(exit.code, 0, exit.stderr);
    assert.ok(report.latency.summary.direct.p99Ms.median > 0);
    assert.ok(report.latency.summary.through.p99Ms.median > 0);
    assert.match(markdown, /^- (not )?reached: 40 µs CPU a request$/m);
  });

  it('names no folder of this machine in its results', () => {
    assert.ok(!JSON.stringify(report).includes(root));
    assert.ok(!markdown.includes(root));
  });

  it('refuses a gateway that it does not know', async () => {
    const { code, stderr } = await runNode([program, 'gateway', '--peers', 'warp']);

    assert.equal(code, 1);
    assert.match(stderr, /no peer warp; there are: fastify \+ grpc-js, sallyport/);
  });
});

interface Report {
  readonly absent: readonly { readonly peer: string; readonly reason: string }[];
  readonly throughput: { readonly summary: readonly Row[] };
  readonly latency: { readonly summary: { readonly direct: Quantiles; readonly through: Quantiles } };
}

interface Row {
  readonly gateway: string;
  readonly requestsPerSecond: Spread;
  readonly serviceCpuUs: Spread;
  readonly gatewayRssMb: Spread;
}

interface Quantiles {
  readonly p99Ms: Spread;
}

interface Spread {
  readonly median: number;
}
