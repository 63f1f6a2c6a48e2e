import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, lstatSync, readdirSync, readFileSync, symlinkSync, unlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { UsageError } from '@sallyport/core';
import { updateSidecar } from '@sallyport/sidecar';
import { PidFile } from '@sallyport/sidecar/spi';
import { idOf, type SidecarWorld, sidecarWorld } from '../support/sidecar/world.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

describe('the sockets of a sidecar in a folder', () => {
  let folder: TemporaryFolder;
  let world: SidecarWorld;

  beforeEach(() => {
    folder = temporaryFolder();
    world = sidecarWorld();
  });

  afterEach(async () => {
    await world[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  function reachedAt(path: string) {
    return world.make({
      upstreams: {
        ledger: { protocol: 'tcp', listen: `unix:${path}`, addresses: ['127.0.0.1:9'], identity: idOf('other') },
      },
    }).sidecar;
  }

  it('refuses to put one in the place of a file that is no socket', async () => {
    const file = folder.write('notes.txt', 'not to be lost');

    await assert.rejects(reachedAt(file).start(), { message: /a file that is no socket is there/ });

    assert.equal(readFileSync(file, 'utf8'), 'not to be lost');
    assert.deepEqual(readdirSync(folder.path), ['notes.txt']);
  });

  it('refuses to put one in the place of a link, wherever it leads', async () => {
    const link = `${folder.path}/link`;
    symlinkSync(`${folder.path}/nowhere`, link);

    await assert.rejects(reachedAt(link).start(), { message: /a file that is no socket is there/ });

    assert.ok(lstatSync(link).isSymbolicLink());
  });

  it('leaves the socket of another process alone when it ends, though it has the same name', async () => {
    const path = `${folder.path}/ledger.sock`;
    const first = reachedAt(path);
    await first.start();
    unlinkSync(path);
    const other = createServer().listen(path);
    await once(other, 'listening');

    await first.stop();

    assert.ok(existsSync(path));
    other.close();
    await once(other, 'close');
  });

  it('makes them for the own user alone, whatever the mask of the process', async () => {
    const before = process.umask(0);
    try {
      const path = `${folder.path}/ledger.sock`;

      await reachedAt(path).start();

      assert.equal(lstatSync(path).mode & 0o777, 0o600);
      assert.equal(process.umask(), 0);
    } finally {
      process.umask(before);
    }
  });
});

describe('the pid file of a sidecar', () => {
  it('follows no link that somebody has put there', () => {
    using folder = temporaryFolder();
    const treasure = folder.write('treasure', 'gold');
    const path = `${folder.path}/sidecar.pid`;
    symlinkSync(treasure, path);
    symlinkSync(treasure, `${path}.${process.pid}`);

    new PidFile(path).write();

    assert.equal(readFileSync(treasure, 'utf8'), 'gold');
    assert.equal(new PidFile(path).read().pid, process.pid);
  });

  it('is not taken back from the process that serves by now', () => {
    using folder = temporaryFolder();
    const path = folder.write('sidecar.pid', '1\n1\n\n');
    const file = new PidFile(path);

    file.writeProblem('the successor ended');
    file.remove();

    assert.equal(readFileSync(path, 'utf8'), '1\n1\n\n');
  });

  it('keeps no sidecar from going on where it cannot be written', () => {
    new PidFile('/nonexistent/sidecar.pid').writeProblem('the successor ended');
  });

  it('sends no signal to a process of which it does not know when it began', async () => {
    using folder = temporaryFolder();
    const stranger = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
    try {
      const pidFile = folder.write('sidecar.pid', `${stranger.pid}\n`);

      await assert.rejects(updateSidecar({ pidFile, timeoutMs: 100 }), UsageError);

      assert.equal(stranger.signalCode, null);
    } finally {
      stranger.kill('SIGKILL');
      await once(stranger, 'exit');
    }
  });

  it('sends no signal to a process of another user than that of the file', function () {
    // Only root can give files away.
    if (process.getuid?.() !== 0) this.skip();
    using folder = temporaryFolder();
    const path = `${folder.path}/sidecar.pid`;
    const file = new PidFile(path);
    file.write();
    assert.equal(file.read().pid, process.pid);

    chownSync(path, 12_345, 12_345);

    assert.throws(() => file.serving(), UsageError);
  });
});
