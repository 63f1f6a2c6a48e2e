import assert from 'node:assert/strict';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Pkcs12Options, secret, tls } from '@sallyport/core';
import type { IdentityFiles } from '@sallyport/pki';
import { openssl, requireOpenssl } from '../../../support/openssl.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';
import { prod, recorder, web } from './support.js';

describe('PKCS#12 files', () => {
  requireOpenssl();

  let folder: TemporaryFolder;
  let files: IdentityFiles;
  let options: Pkcs12Options;
  const intermediate = prod.intermediate();
  beforeEach(async () => {
    folder = temporaryFolder();
    files = await intermediate.issue({ id: web }).write(folder.path);
    const passphrase = secret.file(folder.write('passphrase', 'canary-pässword\n'));
    options = { pkcs12: join(folder.path, 'web.p12'), passphrase, ca: files.ca };
  });
  afterEach(() => folder[Symbol.dispose]());

  /** Writes the file as the `openssl` command does. */
  function write(...more: string[]): void {
    const { status, stderr } = openssl([
      ...['pkcs12', '-export', '-in', files.cert, '-inkey', files.key, '-out', options.pkcs12],
      ...['-passout', `file:${folder.path}/passphrase`, ...more],
    ]);
    assert.equal(status, 0, stderr);
  }

  async function problem(): Promise<string | undefined> {
    const [first, ...others] = await tls.fromFiles(options).check();
    assert.deepEqual(others, []);
    return first && `${first.id} at ${first.path}: ${first.problem}`;
  }

  it('give certificate, intermediates and key, and no trust', async () => {
    write('-certfile', files.ca);
    const handle = await tls.fromFiles(options).open(recorder());
    const { identity, certificateChain, privateKey } = handle.current();
    handle.close();
    assert.equal(identity.toString(), web);
    assert.equal(certificateChain, readFileSync(files.cert, 'utf8'));
    assert.equal(privateKey(), readFileSync(files.key, 'utf8'));
  });

  for (const more of [
    ['-keypbe', 'AES-128-CBC', '-certpbe', 'AES-192-CBC'],
    ['-macalg', 'sha512', '-iter', '10000'],
    ['-keypbe', 'NONE', '-certpbe', 'NONE'],
  ]) {
    it(`are read with ${more.join(' ')}`, async () => {
      write(...more);
      assert.equal(await problem(), undefined);
    });
  }

  it('take over when they are replaced', async () => {
    write();
    const handle = await tls.fromFiles({ ...options, pollMs: 50 }).open(recorder());
    const first = handle.current();
    files = await intermediate.issue({ id: web }).write(folder.path);
    write();
    await new Promise<void>((resolve) => handle.onChange(() => resolve()));
    assert.notEqual(handle.current().leaf.serialNumber, first.leaf.serialNumber);
    handle.close();
  });

  it('are refused with a wrong passphrase, and without one that can be read', async () => {
    write();
    writeFileSync(join(folder.path, 'passphrase'), 'canary-other');
    assert.equal(
      await problem(),
      'tls-material-invalid at tls.pkcs12: the passphrase is wrong, or the file is damaged',
    );
    options = { ...options, passphrase: secret.file(join(folder.path, 'none')) };
    assert.match(String(await problem()), /^secret-unavailable at tls\.passphrase/);
  });

  for (const [what, more] of [
    ['3DES', ['-keypbe', 'PBE-SHA1-3DES', '-certpbe', 'PBE-SHA1-3DES']],
    ['a MAC of SHA-1', ['-macalg', 'sha1']],
  ] as const) {
    it(`are refused with ${what}`, async () => {
      write(...more);
      assert.match(String(await problem()), /protected with RC2, 3DES or SHA-1; export it anew/);
    });
  }

  it('are refused without a MAC, without a key, and with iterations beyond all measure', async () => {
    write('-nomac');
    assert.match(String(await problem()), /has no MAC/);
    write('-nokeys');
    assert.match(String(await problem()), /there is no private key in it/);
    write('-iter', '3000000', '-nomaciter');
    assert.match(String(await problem()), /asks for 3000000 iterations/);
  });

  it('are refused when others may read them', async () => {
    write();
    chmodSync(options.pkcs12, 0o644);
    assert.match(String(await problem()), /^tls-key-exposed at tls\.pkcs12/);
  });

  it('are refused, and never more than that, whichever byte is damaged', async () => {
    write();
    const good = readFileSync(options.pkcs12);
    for (let at = 0; at < good.length; at += 41) {
      const bad = Buffer.from(good);
      bad.writeUInt8((bad.readUInt8(at) ^ 0x55) & 0xff, at);
      writeFileSync(options.pkcs12, bad);
      assert.match(String(await problem()), /^tls-material-invalid at tls\.pkcs12: /, `byte ${at}`);
    }
    writeFileSync(options.pkcs12, good.subarray(0, 200));
    assert.match(String(await problem()), /it is damaged, or not a PKCS#12 file in DER/);
  });
});
