import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Exit, runNode } from '../support/child.js';
import { root } from '../support/repository.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const program = join(root, 'bench', 'dist', 'main.js');
const proxies = ['haproxy', 'sallyport', 'nginx stream', 'stunnel'];

describe('the benchmark of the sidecar', () => {
  let exit: Exit;
  let report: Report;
  let markdown: string;

  before(async function () {
    this.timeout(120_000);
    using folder = temporaryFolder();
    const brief = ['--rounds', '1', '--duration-ms', '100', '--connections', '20'];
    exit = await runNode([program, 'sidecar', ...brief, '--out', folder.path], {
      env: { NODE_V8_COVERAGE: undefined },
      timeoutMs: 110_000,
    });
    const read = (name: string) => {
      const path = join(folder.path, name);
      return existsSync(path) ? readFileSync(path, 'utf8') : '';
    };
    report = JSON.parse(read('sidecar.json') || '{}');
    markdown = read('sidecar.md');
  });

  for (const proxy of proxies) {
    it(`measures handshakes, bytes, round trips and idle connections through ${proxy}`, function () {
      assert.equal(exit.code, 0, exit.stderr);
      if (proxy !== 'sallyport' && report.absent.some(({ peer }) => peer === proxy)) this.skip();

      const row = report.proxies.summary.find((one) => one.proxy === proxy);

      assert.ok(row);
      for (const [name, { median }] of Object.entries(row.values)) assert.ok(median >= 0, name);
      assert.ok((row.values.handshakes?.median ?? 0) > 0);
      assert.ok((row.values.p99At64?.median ?? 0) > 0);
      assert.equal(typeof row.idleKb, 'number');
      assert.ok(markdown.includes(`| ${proxy} `));
    });
  }

  it('names what it has left out, and says which aims are reached', () => {
    assert.equal(exit.code, 0, exit.stderr);
    for (const { peer, reason } of report.absent) assert.ok(markdown.includes(`Left out: ${peer}, ${reason}.`));
    assert.match(markdown, /^- (not )?reached: 45 KB an idle connection$/m);
  });

  it('names no folder of this machine in its results', () => {
    assert.ok(!JSON.stringify(report).includes(root));
    assert.ok(!markdown.includes(root));
  });
});

interface Report {
  readonly absent: readonly { readonly peer: string; readonly reason: string }[];
  readonly proxies: { readonly summary: readonly Row[] };
}

interface Row {
  readonly proxy: string;
  readonly values: Readonly<Record<string, { readonly median: number }>>;
  readonly idleKb: number;
}
