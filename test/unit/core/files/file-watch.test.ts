import assert from 'node:assert/strict';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type FileWatch, lookAtFiles, systemClock, watchFiles } from '@sallyport/core/spi';
import { runNode } from '../../../support/child.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

const NEVER_MS = 3_600_000;

describe('file watch', () => {
  let folder: TemporaryFolder;
  let file: string;
  let changes: number;
  let watched: FileWatch | undefined;
  beforeEach(() => {
    folder = temporaryFolder();
    mkdirSync(join(folder.path, 'inner'));
    file = folder.write('inner/a.pem', 'one');
    changes = 0;
  });
  afterEach(() => {
    watched?.close();
    folder[Symbol.dispose]();
  });

  async function watching(paths: readonly string[], pollMs: number): Promise<void> {
    watched = await watchFiles(paths, { clock: systemClock, pollMs, onChange: () => changes++ });
  }

  /** Waits for a change after `act`, and that there is but one. */
  async function changeOf(act: () => void): Promise<void> {
    const before = changes;
    act();
    for (let waited = 0; changes === before && waited < 3_000; waited += 10) await sleep(10);
    assert.equal(changes, before + 1);
  }

  it('looks at once when it is told to, at what nobody has reported', async () => {
    // Whoever watches the folder of one name hears nothing of what is written by another.
    const elsewhere = join(folder.path, 'a.pem');
    linkSync(file, elsewhere);
    await watching([file], NEVER_MS);
    writeFileSync(elsewhere, 'two');
    await sleep(100);
    assert.equal(changes, 0);

    await changeOf(lookAtFiles);
  });

  for (const [how, pollMs] of [
    ['the system reports it', NEVER_MS],
    ['nothing reports it but the poll', 20],
  ] as const) {
    describe(`when ${how}`, () => {
      it('notices a write, a new mode, a deletion and a return', async () => {
        await watching([file], pollMs);

        await changeOf(() => writeFileSync(file, 'two'));
        await changeOf(() => chmodSync(file, 0o644));
        await changeOf(() => rmSync(file));
        await changeOf(() => writeFileSync(file, 'three'));
      });

      it('notices a file that is replaced by another', async () => {
        await watching([file], pollMs);
        await changeOf(() => renameSync(folder.write('inner/new.pem', 'two'), file));
      });

      it('notices the swap of a symbolic link in the way, as Kubernetes does it', async () => {
        for (const version of ['v1', 'v2']) {
          mkdirSync(join(folder.path, version));
          folder.write(`${version}/tls.crt`, version);
        }
        symlinkSync('v1', join(folder.path, '..data'));
        symlinkSync('..data/tls.crt', join(folder.path, 'tls.crt'));
        await watching([join(folder.path, 'tls.crt')], pollMs);

        await changeOf(() => {
          symlinkSync('v2', join(folder.path, '..data_tmp'));
          renameSync(join(folder.path, '..data_tmp'), join(folder.path, '..data'));
        });
      });
    });
  }

  it('survives the deletion and return of the folder, and hears again what happens in it', async () => {
    await watching([file], 20);

    await changeOf(() => rmSync(dirname(file), { recursive: true }));
    await changeOf(() => {
      mkdirSync(dirname(file));
      writeFileSync(file, 'two');
    });
    await changeOf(() => writeFileSync(file, 'three'));
  });

  it('reports several writes in a burst once', async () => {
    const other = folder.write('inner/b.pem', 'one');
    await watching([file, other], NEVER_MS);

    await changeOf(() => {
      for (const text of ['2', '3', '4']) for (const path of [file, other]) writeFileSync(path, text);
    });
    await sleep(150);
    assert.equal(changes, 1);
  });

  it('notices content of the same size and time', async () => {
    const time = new Date(2_000_000_000_000);
    utimesSync(file, time, time);
    await watching([file], 20);

    await changeOf(() => {
      writeFileSync(file, 'eno');
      utimesSync(file, time, time);
    });
  });

  it('ignores other files in the folder', async () => {
    await watching([file], 20);
    folder.write('inner/other', 'x');
    await sleep(150);
    assert.equal(changes, 0);
  });

  it('reports nothing after it was closed, twice', async () => {
    await watching([file], 20);
    writeFileSync(file, 'two');
    watched?.close();
    watched?.close();
    await sleep(120);
    assert.equal(changes, 0);
  });

  it('does not keep the process alive', async () => {
    const script = `
      import { systemClock, watchFiles } from '@sallyport/core/spi';
      await watchFiles([${JSON.stringify(file)}], { clock: systemClock, pollMs: 50, onChange() {} });
      console.log('watching');`;

    const { code, stdout } = await runNode(['--input-type=module', '--eval', script], { cwd: import.meta.dirname });

    assert.deepEqual([code, stdout], [0, 'watching\n']);
  });

  it('leaves no watch of the system behind', async function () {
    if (process.platform !== 'linux') this.skip();
    const before = systemWatches();
    await watching([file], NEVER_MS);
    assert.ok(systemWatches() > before);

    watched?.close();

    for (let waited = 0; systemWatches() > before && waited < 1_000; waited += 5) await sleep(5);
    assert.equal(systemWatches(), before);
  });
});

function systemWatches(): number {
  const texts = readdirSync('/proc/self/fdinfo').map((fd) => {
    try {
      return readFileSync(join('/proc/self/fdinfo', fd), 'utf8');
    } catch {
      return ''; // closed meanwhile: the one that listed the folder
    }
  });
  return texts.join('').split('inotify wd').length - 1;
}
