import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Exit, runNode, startNode } from '../support/child.js';
import { root } from '../support/repository.js';
import { requireServers } from '../support/servers/programs.js';

describe('examples', function () {
  this.timeout(60_000);

  it('01-hello greets the caller by its identity and refuses the stranger', async () => {
    const { code, stdout } = await example('01-hello/hello.js');

    assert.equal(code, 0);
    assert.match(stdout, /^Hello Ann, you came as spiffe:\/\/hello\.example\/svc\/web$/m);
    assert.match(stdout, /^PERMISSION_DENIED: spiffe:\/\/hello\.example\/svc\/stranger may not call/m);
  });

  it('02-two-services finds auth through users, and keeps web away from auth', async () => {
    const { code, stdout } = await example('02-two-services/run.js');

    assert.equal(code, 0);
    assert.match(stdout, /me: \{ id: 'ada', name: 'Ada Lovelace', city: 'London' \}/);
    assert.match(stdout, /found: Alan Turing/);
    assert.match(stdout, /a wrong session: UNAUTHENTICATED/);
    assert.match(stdout, /web calls auth itself: PERMISSION_DENIED/);
  });

  describe('03-consul', () => {
    requireServers('consul-1.8.7');

    it('finds a service in Consul, and refuses a foreign name and a management token', async () => {
      const { code, stdout, stderr } = await example('03-consul/run.js');

      assert.equal(code, 0, stderr);
      assert.match(stdout, /^service "stock" \{\n {2}policy = "read"\n\}$/m);
      assert.match(stdout, /^shop found stock in Consul: 4 gates$/m);
      assert.match(stdout, /^registering stock with the token of shop: PERMISSION_DENIED$/m);
      assert.match(stdout, /^refused: registry-credential-too-powerful, the token is a management token$/m);
    });
  });

  describe('04-etcd', () => {
    requireServers('etcd-3.5', 'etcdctl-3.5');

    it('finds a service in etcd, and does not start with the credential of root', async () => {
      const { code, stdout, stderr } = await example('04-etcd/run.js');

      assert.equal(code, 0, stderr);
      assert.match(
        stdout,
        /^etcdctl role grant-permission sallyport-shop read --prefix \/sallyport\/v1\/services\/stock\/$/m,
      );
      assert.match(stdout, /^shop found stock in etcd: 4 gates$/m);
      assert.match(stdout, /^refused: registry-credential-too-powerful, the user root may do everything in etcd$/m);
    });
  });

  it('05-gateway logs people in at an OpenID provider, and refuses calls without login, scope, origin or quota', async () => {
    const { code, stdout, stderr } = await example('05-gateway/run.js', '--check');

    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^nobody reaches stock: 404 /m);
    assert.match(stdout, /^charging without a login: 401 .*credential-missing/m);
    assert.match(stdout, /^reading what can be called without a login: 401 .*credential-missing/m);
    assert.match(stdout, /^bob, who may only read: 403 .*scope-missing/m);
    assert.match(stdout, /^ada, logged in: 200 .*"payer":"ada"/m);
    assert.match(stdout, /^a page from elsewhere in her browser: 403 .*origin-forbidden/m);
    assert.match(stdout, /^and once too often: 429 .*rate-limited/m);
    assert.match(stdout, /^a program with its token: 200 .*"payer":"nightly-job"/m);
  });

  describe('06-sidecar', () => {
    requireServers('python3');

    it('makes two Python programs members of the mesh, keeps others out, and is updated while they talk', async () => {
      const { code, stdout, stderr } = await example('06-sidecar/run.js');

      assert.equal(code, 0, stdout + stderr);
      assert.match(stdout, /^http:\/\/ledger\/v1\/entries\/42 200 .*"for": "spiffe:\/\/example.org\/svc\/shop"/m);
      assert.match(stdout, /^http:\/\/ledger\/v1\/audits\/42 403 /m);
      assert.match(stdout, /^http:\/\/billing\/v1\/invoices 421 /m);
      assert.match(stdout, /^the reporter: http:\/\/ledger\/v1\/entries\/42 403 /m);
      assert.match(stdout, /^meanwhile 200 of 200 answers were good$/m);
      const gaps = [...stdout.matchAll(/^ {2}\[(\w+)\] .* at (--\w+):/gm)].map(
        ([, severity, flag]) => `${severity} ${flag}`,
      );
      assert.deepEqual(gaps, [
        'high --proxy_address',
        'high --proxy_tls_ca_file',
        'medium --proxy_update',
        'medium --proxy_upstream',
      ]);
      assert.match(stdout, /^mended:$/m);
    });
  });

  it('07-rotation renews, changes its root and revokes a peer without a failed call', async () => {
    const { code, stdout, stderr } = await example('07-rotation/run.js', '--quick');

    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /new root: the last certificate of the old root is gone, and with it the old root$/m);
    assert.match(stdout, /guest was revoked and gone after \d+ ms$/m);
    assert.match(stdout, /^[1-9]\d* calls, 0 failed$/m);
  });

  it('the demo keeps every promise it makes', async () => {
    const { code, stdout } = await example('demo/demo.js');

    assert.equal(code, 0, stdout);
    assert.match(stdout, /16 of 16 promises kept/);
    assert.doesNotMatch(stdout, /✘/);
  });

  it('the demo leaves nothing behind when it is interrupted, even under load', async () => {
    await using demo = startNode([join(root, 'examples', 'dist', 'demo', 'demo.js')], { timeoutMs: 45_000 });
    await demo.output(/^Operations$/m);

    const { code, stdout } = await demo.stop('SIGINT');

    assert.equal(code, 130);
    assert.match(stdout, /Interrupted/);
    assert.ok(!existsSync(folderOf(stdout)), 'its folder is still there');
  });
});

/** The folder of the demo, from the line about the key in it that everybody can read. */
function folderOf(stdout: string): string {
  return /tls\.key: (.+)\/careless\.key has mode/.exec(stdout)?.[1] ?? '/';
}

function example(path: string, ...args: string[]): Promise<Exit> {
  return runNode([join(root, 'examples', 'dist', path), ...args], { timeoutMs: 45_000 });
}
