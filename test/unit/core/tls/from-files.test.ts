import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { type FromFilesOptions, InsecureConfigurationError, secret, type TlsSource, tls } from '@sallyport/core';
import type { Clock, TlsHandle, TlsMaterial } from '@sallyport/core/spi';
import { createAuthority, type IdentityFiles } from '@sallyport/pki';
import { runNode } from '../../../support/child.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';
import { partner, prod, type Recorder, recorder, web } from './support.js';

let folder: TemporaryFolder;
let files: IdentityFiles;
beforeEach(async () => {
  folder = temporaryFolder();
  files = await prod.issue({ id: web }).write(folder.path);
});
afterEach(() => folder[Symbol.dispose]());

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let waited = 0; !holds(); waited += 10) {
    assert.ok(waited < 6_000, `never: ${what}`);
    await sleep(10);
  }
}

describe('tls.fromFiles', () => {
  async function ids(options: unknown): Promise<string[]> {
    return (await tls.fromFiles(options as FromFilesOptions).check()).map(({ id, path }) => `${id} at ${path}`);
  }

  it('accepts a valid set of files, and keeps nothing open in checking it', async () => {
    assert.deepEqual(await ids(files), []);
  });

  it('refuses unknown, missing and insecure options at once', async () => {
    assert.deepEqual(await ids({ cert: files.cert, Key: files.key, rejectUnauthorized: false, passphrase: 'canary' }), [
      'tls-verification-off at tls.rejectUnauthorized',
      'secret-literal at tls.passphrase',
      'option-missing at tls.key',
      'option-missing at tls.ca',
      'option-unknown at tls.Key',
    ]);
  });

  it('does not open what check() refuses, with the same violations', async () => {
    for (const options of [
      { ...files, pollMs: 0 },
      { ...files, key: files.cert },
    ]) {
      const source = tls.fromFiles(options);
      const violations = await source.check();
      await assert.rejects(source.open(recorder()), (error: unknown) => {
        assert.ok(error instanceof InsecureConfigurationError);
        assert.deepEqual(
          error.violations.map((v) => v.id),
          violations.map((v) => v.id),
        );
        return true;
      });
    }
  });

  it('can be opened after the files were mended', async () => {
    chmodSync(files.key, 0o644);
    const source = tls.fromFiles(files);
    await assert.rejects(source.open(recorder()), InsecureConfigurationError);
    chmodSync(files.key, 0o600);
    (await source.open(recorder())).close();
  });

  it('reports each file that is missing', async () => {
    const none = join(folder.path, 'none');
    assert.deepEqual(
      (await ids({ cert: none, key: none, ca: none, crl: [none], bundles: { 'partner.example': none } })).sort(),
      ['bundles["partner.example"]', 'ca', 'cert', 'crl', 'key'].map((field) => `tls-file-unreadable at tls.${field}`),
    );
  });

  it('T71 refuses a key that others may read', async () => {
    chmodSync(files.key, 0o640);
    assert.deepEqual(await ids(files), ['tls-key-exposed at tls.key']);
  });

  it('T71 refuses files that others may replace', async () => {
    chmodSync(files.ca, 0o666);
    assert.deepEqual(await ids(files), ['tls-path-writable at tls.ca']);
    chmodSync(files.ca, 0o644);
    chmodSync(folder.path, 0o777);
    assert.deepEqual(
      (await ids(files)).sort(),
      ['ca', 'cert', 'key'].map((field) => `tls-path-writable at tls.${field}`),
    );
  });

  it('T72 refuses an empty CA, as a name and as a file', async () => {
    assert.deepEqual(await ids({ ...files, ca: '' }), ['tls-ca-empty at tls.ca']);
    assert.deepEqual(await ids({ ...files, ca: folder.write('empty.pem', '') }), ['tls-ca-empty at tls.ca']);
  });

  it('reads an encrypted key with a passphrase from a secret', async () => {
    const key = createPrivateKey(readFileSync(files.key)).export({
      type: 'pkcs8',
      format: 'pem',
      cipher: 'aes-256-cbc',
      passphrase: 'canary',
    });
    const options = { ...files, key: folder.write('locked.key', key.toString()) };

    assert.deepEqual(await ids({ ...options, passphrase: secret.file(folder.write('passphrase', 'canary\n')) }), []);
    assert.deepEqual(await ids({ ...options, passphrase: secret.file(join(folder.path, 'none')) }), [
      'secret-unavailable at tls.passphrase',
    ]);
    assert.deepEqual(await ids(options), ['tls-material-invalid at tls.key']);
  });

  it('keeps federated bundles and revocation lists apart', async () => {
    const bundle = folder.write('partner.pem', partner.bundlePem);
    const crl = folder.write('crl.pem', prod.crl({ revoked: ['0A'] }));
    const handle = await tls.fromFiles({ ...files, bundles: { 'partner.example': bundle }, crl }).open(recorder());

    const { bundles, crls, revoked } = handle.current();
    handle.close();

    assert.deepEqual(
      [...bundles].map(([domain, anchors]) => [domain, anchors.length]),
      [
        ['prod.acme', 1],
        ['partner.example', 1],
      ],
    );
    assert.deepEqual([crls.length, revoked.size], [1, 1]);
  });

  it('T75 shows no key in source, handle or material', async () => {
    const source = tls.fromFiles(files);
    const handle = await source.open(recorder());
    const shown = [source, handle, handle.current()].map(
      (part) => inspect(part, { depth: 9, showHidden: true }) + JSON.stringify(part),
    );
    handle.close();

    const canary = readFileSync(files.key, 'utf8').split('\n')[1] ?? '';
    assert.ok(canary.length > 20 && !shown.join().includes(canary) && !shown.join().includes('PRIVATE'));
  });

  it('does not keep the process alive', async () => {
    const script = `
      import { tls } from '@sallyport/core';
      import { systemClock } from '@sallyport/core/spi';
      const handle = await tls.fromFiles(${JSON.stringify(files)}).open({ clock: systemClock, events: { emit() {} } });
      console.log(String(handle.current().identity));`;

    const { code, stdout, stderr } = await runNode(['--input-type=module', '--eval', script], {
      cwd: import.meta.dirname,
    });

    assert.deepEqual([code, stdout], [0, `${web}\n`], stderr);
  });
});

describe('rotation of files', () => {
  let source: TlsSource;
  let context: Recorder;
  let handle: TlsHandle;
  let first: TlsMaterial;
  beforeEach(async () => {
    source = tls.fromFiles({ ...files, pollMs: 200 });
    context = recorder();
    handle = await source.open(context);
    first = handle.current();
  });
  afterEach(() => handle.close());

  const rotated = () => handle.current().generation > first.generation;
  const failed = () => context.of('rotation-failed').length > 0;
  const keepsFirst = () => assert.equal(handle.current(), first);

  it('serves the new pair, tells listeners and raises rotated', async () => {
    const heard: TlsMaterial[] = [];
    handle.onChange((material) => heard.push(material));
    const { serial } = await rewrite();

    await until('rotated', rotated);

    assert.equal(handle.current().leaf.serialNumber, serial);
    assert.deepEqual(heard, [handle.current()]);
    const { identity, notAfter, generation } = handle.current();
    assert.deepEqual(context.of('rotated'), [{ identity: identity.toString(), serial, notAfter, generation }]);
    assert.equal(generation, first.generation + 1);
    assert.deepEqual(context.of('rotation-failed'), []);
  });

  it('waits in silence while only one file of the pair has come', async () => {
    const next = prod.issue({ id: web });
    writeFileSync(files.cert, next.certificatePem);
    await sleep(400);
    keepsFirst();
    writeFileSync(files.key, next.privateKeyPem);

    await until('rotated', rotated);

    assert.equal(handle.current().leaf.serialNumber, next.serial);
    assert.deepEqual(context.of('rotation-failed'), []);
  });

  it('keeps the last good pair if the second file never comes, and says so once', async () => {
    writeFileSync(files.cert, prod.issue({ id: web }).certificatePem);

    await until('failure reported', failed);
    await sleep(300);

    keepsFirst();
    assert.deepEqual(context.of('rotation-failed'), [
      { detail: 'tls.key: the private key does not belong to the certificate' },
    ]);
  });

  it('reports another failure anew, and recovers', async () => {
    writeFileSync(files.cert, 'garbage');
    await until('failure reported', failed);
    writeFileSync(files.cert, readFileSync(files.ca));
    await until('second failure reported', () => context.of('rotation-failed').length === 2);
    keepsFirst();

    const { serial } = await rewrite();
    await until('rotated', rotated);
    assert.equal(handle.current().leaf.serialNumber, serial);
  });

  it('follows the swap of a symbolic link, as Kubernetes does it', async () => {
    for (const version of ['v1', 'v2']) await prod.issue({ id: web }).write(join(folder.path, 'mount', version));
    symlinkSync('v1', join(folder.path, 'mount/..data'));
    const paths = Object.fromEntries(
      Object.entries({ cert: 'web.pem', key: 'web.key', ca: 'bundle.pem' }).map(([field, name]) => {
        symlinkSync(`..data/${name}`, join(folder.path, 'mount', name));
        return [field, join(folder.path, 'mount', name)];
      }),
    ) as unknown as IdentityFiles;
    const mounted = await tls.fromFiles(paths).open(context);
    const before = mounted.current();

    symlinkSync('v2', join(folder.path, 'mount/..tmp'));
    renameSync(join(folder.path, 'mount/..tmp'), join(folder.path, 'mount/..data'));

    await until('rotated', () => mounted.current() !== before);
    mounted.close();
    assert.deepEqual(context.of('rotation-failed'), []);
  });

  it('survives the deletion of the folder and takes up its return', async () => {
    rmSync(folder.path, { recursive: true });
    await until('failure reported', failed);
    keepsFirst();
    mkdirSync(folder.path, { mode: 0o700 });
    await rewrite();

    await until('rotated', rotated);
  });

  it('refuses the certificate of another identity', async () => {
    const other = prod.issue({ id: 'spiffe://prod.acme/svc/other' });
    writeFileSync(files.key, other.privateKeyPem);
    writeFileSync(files.cert, other.certificatePem);

    await until('failure reported', failed);

    keepsFirst();
    assert.match(context.of('rotation-failed')[0]?.detail ?? '', /belongs to spiffe:\/\/prod\.acme\/svc\/other/);
  });

  it('T71 refuses a new key that others may read, until it is guarded', async () => {
    chmodSync(files.key, 0o644);
    await rewrite();
    await until('failure reported', failed);
    keepsFirst();
    assert.match(context.of('rotation-failed')[0]?.detail ?? '', /^tls\.key: .* has mode 0644/);

    chmodSync(files.key, 0o600);
    await until('rotated', rotated);
  });

  it('follows the files back to older ones that are still valid', async () => {
    const older = Object.values(files).map((path) => [path, readFileSync(path)] as const);
    await rewrite();
    await until('rotated', rotated);

    for (const [path, content] of older) writeFileSync(path, content);
    await until('rotated back', () => handle.current().leaf.serialNumber === first.leaf.serialNumber);

    assert.equal(handle.current().generation, first.generation + 2);
  });

  it('takes up a new bundle alone', async () => {
    const next = createAuthority({ trustDomain: 'prod.acme' });
    writeFileSync(files.ca, prod.bundlePem + next.bundlePem);

    await until('rotated', rotated);

    assert.equal(handle.current().bundles.get('prod.acme')?.length, 2);
  });

  it('keeps the last good pair when the passphrase cannot be had at that moment', async () => {
    const key = (pem: string) =>
      createPrivateKey(pem)
        .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'canary' })
        .toString();
    let answers: (string | undefined)[] = [];
    const passphrase = secret.from({ get: async () => (answers.length > 0 ? answers.shift() : 'canary') }, 'key');
    writeFileSync(files.key, key(readFileSync(files.key, 'utf8')));
    const handle = await tls.fromFiles({ ...files, passphrase, pollMs: 20 }).open(recorder());
    const next = prod.issue({ id: web });

    answers = ['canary', undefined];
    writeFileSync(files.key, key(next.privateKeyPem));
    writeFileSync(files.cert, next.certificatePem);

    await until('the new pair serves', () => handle.current().leaf.serialNumber === next.serial);
    handle.close();
  });

  it('raises nothing for files that were only touched', async () => {
    const now = new Date();
    for (const path of Object.values(files)) utimesSync(path, now, now);
    await sleep(400);
    keepsFirst();
    assert.deepEqual(context.recorded, []);
  });

  it('reaches every open handle, and none that was closed', async () => {
    const [other, closed] = [recorder(), recorder()];
    const [second, third] = [await source.open(other), await source.open(closed)];
    const heard: string[] = [];
    third.onChange(() => heard.push('closed'));
    second.onChange(() => heard.push('unsubscribed'))();
    second.onChange(() => {
      throw new Error('broken listener');
    });
    second.onChange(() => heard.push('open'));
    third.close();
    third.close();

    await rewrite();
    await until('rotated', () => second.current() !== first);
    second.close();

    assert.deepEqual(heard, ['open']);
    assert.deepEqual(
      context.recorded.map((event) => event.type),
      ['rotated'],
    );
    assert.deepEqual(
      other.recorded.map((event) => event.type),
      ['listener-failed', 'rotated'],
    );
    assert.deepEqual(closed.recorded, []);
  });

  it('ends with the last handle, and goes on with the next at a higher generation', async () => {
    handle.close();
    await rewrite();
    await sleep(150);
    assert.deepEqual(context.recorded, []);

    handle = await source.open(context);

    assert.ok(rotated());
    assert.notEqual(handle.current().leaf.serialNumber, first.leaf.serialNumber);
  });

  it('survives that a handle is closed while another is being opened', async () => {
    handle.close();
    const [one, two] = [source.open(context), source.open(context)];
    (await one).close();
    handle = await two;

    await rewrite();
    await until('rotated', rotated);
  });

  /** Writes a new pair, the key first; each file keeps its mode. */
  async function rewrite() {
    const next = prod.issue({ id: web });
    writeFileSync(files.key, next.privateKeyPem, { mode: 0o600 });
    writeFileSync(files.cert, next.certificatePem);
    writeFileSync(files.ca, prod.bundlePem);
    return next;
  }
});

describe('expiry of TLS material', () => {
  /** A clock that stands still but for `advance`. */
  function standing(now: number): Clock & { advance(ms: number): void } {
    let timers: { at: number; callback: () => void }[] = [];
    return {
      now: () => now,
      after(ms, callback) {
        const timer = { at: now + ms, callback };
        timers.push(timer);
        return { cancel: () => (timers = timers.filter((other) => other !== timer)) };
      },
      advance(ms) {
        const end = now + ms;
        for (;;) {
          const next = timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
          if (next === undefined) break;
          timers = timers.filter((timer) => timer !== next);
          now = next.at;
          next.callback();
        }
        now = end;
      },
    };
  }

  const MINUTE_MS = 60_000;

  it('is announced at 50, 25 and 10 % of the lifetime left', async () => {
    const notBefore = Date.now() - MINUTE_MS;
    files = await prod.issue({ id: web, notBefore, ttlMs: 100 * MINUTE_MS }).write(folder.path);
    const clock = standing(Date.now());
    const context = recorder(clock);
    const handle = await tls.fromFiles({ ...files, pollMs: 2 ** 31 - 1 }).open(context);
    const { notAfter } = handle.current();

    clock.advance(200 * MINUTE_MS);
    handle.close();

    assert.deepEqual(
      context.of('expiring').map(({ remainingMs }) => Math.round(remainingMs / MINUTE_MS)),
      [50, 25, 10],
    );
    assert.deepEqual(context.of('expiring')[0], {
      identity: web,
      notAfter,
      remainingMs: context.of('expiring')[0]?.remainingMs,
    });
  });

  it('is announced at once to who opens late', async () => {
    files = await prod
      .issue({ id: web, notBefore: Date.now() - 60 * MINUTE_MS, ttlMs: 100 * MINUTE_MS })
      .write(folder.path);
    const context = recorder();

    (await tls.fromFiles(files).open(context)).close();

    assert.equal(context.of('expiring').length, 1);
  });

  it('is not announced in the first half', async () => {
    const context = recorder();
    (await tls.fromFiles(files).open(context)).close();
    assert.deepEqual(context.recorded, []);
  });
});
