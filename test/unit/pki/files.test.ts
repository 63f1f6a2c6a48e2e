import assert from 'node:assert/strict';
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAuthority, openAuthority } from '@sallyport/pki';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';
import { refusal, web } from './support.js';

describe('the files of an identity', () => {
  let folder: TemporaryFolder;
  beforeEach(() => {
    folder = temporaryFolder();
  });
  afterEach(() => folder[Symbol.dispose]());

  it('are the certificate, the key and the bundle, and the key is for its owner alone', async () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate();
    const leaf = authority.issue({ id: web });
    const directory = join(folder.path, 'made', 'here');

    const files = await leaf.write(directory);

    assert.deepEqual(files, {
      cert: join(directory, 'web.pem'),
      key: join(directory, 'web.key'),
      ca: join(directory, 'bundle.pem'),
    });
    assert.equal(readFileSync(files.cert, 'utf8'), leaf.certificatePem);
    assert.equal(readFileSync(files.key, 'utf8'), leaf.privateKeyPem);
    assert.equal(readFileSync(files.ca, 'utf8'), authority.bundlePem);
    assert.deepEqual([files.cert, files.key, files.ca, directory].map(mode), ['644', '600', '644', '700']);
  });

  it('keep their modes whatever the umask', async () => {
    const leaf = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: web });
    const umask = process.umask(0o077);
    try {
      const files = await leaf.write(folder.path);

      assert.deepEqual([files.cert, files.key].map(mode), ['644', '600']);
    } finally {
      process.umask(umask);
    }
  });

  it('are replaced whole, even where the old key was readable by all, and nothing else is left behind', async () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const files = await authority.issue({ id: web }).write(folder.path);
    chmodSync(files.key, 0o644);
    const inode = statSync(files.key).ino;
    const renewed = authority.issue({ id: web });

    await renewed.write(folder.path);

    assert.equal(readFileSync(files.key, 'utf8'), renewed.privateKeyPem);
    assert.equal(mode(files.key), '600');
    assert.notEqual(statSync(files.key).ino, inode);
    assert.deepEqual(readdirSync(folder.path).sort(), ['bundle.pem', 'web.key', 'web.pem']);
  });

  it('leave no part of a key behind when they cannot be written', async () => {
    const leaf = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: web });
    await leaf.write(join(folder.path, 'web.key')); // a folder stands where the key belongs

    await assert.rejects(leaf.write(folder.path));

    assert.deepEqual(readdirSync(folder.path).sort(), ['bundle.pem', 'web.key']);
  });

  it('bear another name when told so', async () => {
    const leaf = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: web });

    const files = await leaf.write(folder.path, { name: 'tls' });

    assert.equal(files.key, join(folder.path, 'tls.key'));
  });

  for (const name of ['', '.', '..', '../web', 'a/b', '.hidden', 'bundle', 'a\0b']) {
    it(`refuse the name ${JSON.stringify(name)}`, async () => {
      const leaf = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: web });

      await assert.rejects(leaf.write(folder.path, { name }), refusal('file-name'));
      assert.deepEqual(readdirSync(folder.path), []);
    });
  }
});

describe('a saved authority', () => {
  let folder: TemporaryFolder;
  beforeEach(() => {
    folder = temporaryFolder();
  });
  afterEach(() => folder[Symbol.dispose]());

  it('opens as it was: its leaves and lists are those of the same authority', async () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' })
      .intermediate({ pathLength: 1 })
      .intermediate({ algorithm: 'Ed25519' });
    await authority.save(folder.path);

    const opened = await openAuthority(folder.path);

    assert.deepEqual({ ...opened }, { ...authority });
    const [, ...chain] = opened.issue({ id: web }).certificatePem.split('-----BEGIN');
    const [, ...expected] = authority.issue({ id: web }).certificatePem.split('-----BEGIN');
    assert.deepEqual(chain.slice(1), expected.slice(1));
    assert.throws(() => opened.intermediate(), refusal('path-length'));
  });

  it('opens a root and an intermediate from one folder', async () => {
    const root = createAuthority({ trustDomain: 'prod.acme' });
    const intermediate = root.intermediate();
    await root.save(join(folder.path, 'ca'), { name: 'root' });
    await intermediate.save(join(folder.path, 'ca'));

    const opened = await openAuthority(join(folder.path, 'ca'), { name: 'root' });

    assert.equal(opened.certificatePem, root.certificatePem);
    assert.equal(opened.intermediate().issue({ id: web }).id, web);
    assert.deepEqual(
      ['', 'root.key', 'authority.key', 'root.pem'].map((name) => mode(join(folder.path, 'ca', name))),
      ['700', '600', '600', '644'],
    );
  });

  for (const [who, bits] of [
    ['the group may read', 0o640],
    ['everybody may read', 0o604],
    ['others may write', 0o602],
  ] as const) {
    it(`refuses a key that ${who}`, async () => {
      await createAuthority({ trustDomain: 'prod.acme' }).save(folder.path);
      chmodSync(join(folder.path, 'authority.key'), bits);

      await assert.rejects(openAuthority(folder.path), refusal('file-exposed'));
    });
  }

  for (const name of ['authority.pem', 'bundle.pem']) {
    it(`refuses a ${name} that others may write`, async () => {
      await createAuthority({ trustDomain: 'prod.acme' }).save(folder.path);
      chmodSync(join(folder.path, name), 0o666);

      await assert.rejects(openAuthority(folder.path), refusal('file-exposed'));
    });
  }

  it('refuses a folder in which others may write', async () => {
    await createAuthority({ trustDomain: 'prod.acme' }).save(folder.path);
    chmodSync(folder.path, 0o777);

    await assert.rejects(openAuthority(folder.path), refusal('file-exposed'));
  });

  it('refuses a folder in which there is none', async () => {
    await assert.rejects(openAuthority(folder.path), refusal('file-unreadable'));
  });

  it('refuses the key of another', async () => {
    await createAuthority({ trustDomain: 'prod.acme' }).save(folder.path);
    await createAuthority({ trustDomain: 'prod.acme' }).save(folder.path, { name: 'other' });
    const stolen = readFileSync(join(folder.path, 'other.key'));
    writeFileSync(join(folder.path, 'authority.key'), stolen, { mode: 0o600 });

    await assert.rejects(openAuthority(folder.path), refusal('file-malformed'));
  });

  it('refuses a leaf in its place', async () => {
    const leaf = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: web });
    await leaf.write(folder.path, { name: 'authority' });

    await assert.rejects(openAuthority(folder.path), refusal('file-malformed'));
  });

  for (const name of ['authority.pem', 'authority.key', 'bundle.pem']) {
    it(`refuses garbage in ${name}, without telling what it read`, async () => {
      await createAuthority({ trustDomain: 'prod.acme' }).save(folder.path);
      writeFileSync(join(folder.path, name), 'garbage');

      await assert.rejects(openAuthority(folder.path), (error: Error) => {
        assert.doesNotMatch(error.message, /garbage/);
        return refusal('file-malformed')(error);
      });
    });
  }
});

function mode(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}
