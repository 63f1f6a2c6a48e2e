import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { runCli } from '../../support/cli.js';
import { eventually } from '../../support/eventually.js';
import { freePort } from '../../support/free-port.js';
import { program } from '../../support/sidecar/program.js';
import { sidecarWorld } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

describe('sallyport sidecar status', () => {
  for (const kind of ['a loopback address', 'a unix socket']) {
    it(`tells whether the sidecar is ready, and why not (${kind})`, async () => {
      using folder = temporaryFolder();
      const listen = kind === 'a unix socket' ? `unix:${folder.path}/admin.sock` : `127.0.0.1:${await freePort()}`;
      await using behind = await program();
      await using world = sidecarWorld();
      await world.start({
        admin: { listen },
        inbound: { target: behind.address, protocol: 'tcp', check: { kind: 'tcp', intervalMs: 20 } },
      });

      assert.deepEqual(await status(listen), { code: 0, out: 'ready', error: '' });
      await behind.stop();

      await eventually(async () => {
        const { code, out } = await status(listen);
        assert.equal(code, 1);
        assert.match(out, /^not ready: the program cannot be reached: ECONNREFUSED$/);
      });
    });
  }

  it('fails where nobody answers, and where somebody else does', async () => {
    const port = await freePort();
    assert.deepEqual(await status(`127.0.0.1:${port}`), {
      code: 1,
      out: '',
      error: 'the admin listener did not answer: ECONNREFUSED',
    });
    const other = createServer((_, response) => response.end('<p>hello</p>')).listen(port, '127.0.0.1');
    try {
      const { code, error } = await status(`127.0.0.1:${port}`);
      assert.equal(code, 1);
      assert.equal(error, 'the admin listener did not answer: HTTP 200');
    } finally {
      other.close();
      other.closeAllConnections();
    }
  });

  it('refuses to look elsewhere than on this machine', async () => {
    for (const listen of ['10.0.0.5:9901', 'unix:relative.sock']) {
      const { code, error } = await status(listen);
      assert.equal(code, 1);
      assert.match(error, /--proxy_admin: a loopback address or unix:\/path/);
    }
    assert.equal((await runCli(['sidecar', 'status'])).code, 1);
  });
});

function status(admin: string) {
  return runCli(['sidecar', 'status', '--proxy_admin', admin]);
}
