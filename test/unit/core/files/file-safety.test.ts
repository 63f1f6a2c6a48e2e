import assert from 'node:assert/strict';
import { chmodSync, chownSync, lchownSync, mkdirSync, symlinkSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { readSafeFile } from '@sallyport/core/spi';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

async function dangers(path: string, expected = { private: true }): Promise<string[]> {
  const { text, findings } = await readSafeFile(path, expected);
  assert.equal(text === undefined, findings.length > 0, 'text is given exactly when there are no findings');
  return findings.map(({ danger }) => danger);
}

/** Only root can give files away. */
function requireRoot(): void {
  before(function () {
    if (process.getuid?.() !== 0) this.skip();
  });
}

describe('file safety', () => {
  let folder: TemporaryFolder;
  let file: string;
  beforeEach(() => {
    folder = temporaryFolder();
    file = folder.write('key.pem', 'content');
  });
  afterEach(() => folder[Symbol.dispose]());

  it('reads a file that only its owner can touch', async () => {
    assert.deepEqual(await readSafeFile(file, { private: true }), { text: 'content', findings: [] });
  });

  it('reads a public file that everybody may read', async () => {
    chmodSync(file, 0o644);
    assert.deepEqual(await dangers(file, { private: false }), []);
  });

  for (const mode of [0o640, 0o604, 0o620, 0o610]) {
    it(`T71 refuses a private file of mode 0${mode.toString(8)}`, async () => {
      chmodSync(file, mode);
      assert.deepEqual(await dangers(file), ['exposed']);
    });
  }

  for (const mode of [0o664, 0o646]) {
    it(`T71 refuses a public file of mode 0${mode.toString(8)}`, async () => {
      chmodSync(file, mode);
      assert.deepEqual(await dangers(file, { private: false }), ['replaceable']);
    });
  }

  it('T71 refuses a file in a folder that others may write', async () => {
    chmodSync(folder.path, 0o777);
    assert.deepEqual(await dangers(file), ['replaceable']);
    assert.deepEqual(await dangers(file, { private: false }), ['replaceable']);
  });

  it('accepts a folder that others may write if it is sticky, like /tmp', async () => {
    chmodSync(folder.path, 0o1777);
    assert.deepEqual(await dangers(file), []);
  });

  it('T71 refuses a file below a folder that others may write', async () => {
    mkdirSync(join(folder.path, 'a/b'), { recursive: true });
    const deep = folder.write('a/b/key.pem', 'content');
    chmodSync(join(folder.path, 'a'), 0o777);

    assert.deepEqual(await dangers(deep), ['replaceable']);
  });

  it('T71 refuses a symbolic link into a folder that others may write', async () => {
    using open = temporaryFolder();
    chmodSync(open.path, 0o777);
    const link = join(folder.path, 'link.pem');
    symlinkSync(open.write('key.pem', 'content'), link);

    assert.deepEqual(await dangers(link), ['replaceable']);
  });

  it('T71 refuses a symbolic link that stands in a folder that others may write', async () => {
    using open = temporaryFolder();
    chmodSync(open.path, 0o777);
    const link = join(open.path, 'link.pem');
    symlinkSync(file, link);

    assert.deepEqual(await dangers(link), ['replaceable']);
  });

  it('T71 refuses a folder on the way that is a link out of a writable folder', async () => {
    using open = temporaryFolder();
    mkdirSync(join(open.path, 'inner'));
    symlinkSync(folder.path, join(open.path, 'inner/way'));
    chmodSync(join(open.path, 'inner'), 0o777);

    assert.deepEqual(await dangers(join(open.path, 'inner/way/key.pem')), ['replaceable']);
  });

  it('follows relative links and parent folders as the kernel does', async () => {
    mkdirSync(join(folder.path, 'a/b'), { recursive: true });
    symlinkSync('a/b', join(folder.path, 'b'));
    symlinkSync('../../key.pem', join(folder.path, 'a/b/key.pem'));

    // Lexically `b/../x` is `x`; for the kernel it is `a/x`.
    const other = folder.write('a/other.pem', 'content');
    assert.deepEqual(await dangers(`${folder.path}/b/key.pem`), []);
    assert.deepEqual(await dangers(`${folder.path}/b/../other.pem`), []);
    chmodSync(other, 0o644);
    assert.deepEqual(await dangers(`${folder.path}/b/../other.pem`), ['exposed']);
  });

  it('reports a missing file, a folder, a circle of links and a giant', async () => {
    symlinkSync('circle', join(folder.path, 'circle'));
    const giant = folder.write('giant', '');
    truncateSync(giant, 5 * 1024 * 1024);

    for (const path of [join(folder.path, 'none'), folder.path, join(folder.path, 'circle'), giant]) {
      assert.deepEqual(await dangers(path), ['unreadable'], path);
    }
  });

  it('T71 names the path and the mode, so that an operator can mend it', async () => {
    chmodSync(file, 0o640);
    const { findings } = await readSafeFile(file, { private: true });
    assert.equal(findings[0]?.problem, `${file} has mode 0640; only its owner may have access`);
  });

  describe('of other users', () => {
    requireRoot();

    it('T71 refuses a private and a public file', async () => {
      chownSync(file, 12_345, 0);
      assert.deepEqual(await dangers(file), ['exposed']);
      assert.deepEqual(await dangers(file, { private: false }), ['replaceable']);
    });

    it('T71 refuses a folder on the way', async () => {
      chownSync(folder.path, 12_345, 0);
      assert.deepEqual(await dangers(file), ['replaceable']);
    });

    it('T71 refuses a link in a sticky folder', async () => {
      using open = temporaryFolder();
      chmodSync(open.path, 0o1777);
      const link = join(open.path, 'link.pem');
      symlinkSync(file, link);
      lchownSync(link, 12_345, 0);

      assert.deepEqual(await dangers(link), ['replaceable']);
    });
  });
});
