import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DirectoryOptions, type FileLayout, InsecureConfigurationError, tls } from '@sallyport/core';
import { readSafeFile, type TlsMaterial } from '@sallyport/core/spi';
import { createAuthority, type IssuedIdentity } from '@sallyport/pki';
import sinon from 'sinon';
import { runNode } from '../../../support/child.js';
import { eventually } from '../../../support/eventually.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';
import { prod, recorder, web } from './support.js';

/** A volume as Kubernetes fills it: files are links into `..data`, which is a link to the folder of one version. */
class MountedSecret {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { mode: 0o755 });
  }

  write(version: string, files: Readonly<Record<string, string>>): void {
    mkdirSync(join(this.path, version));
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(this.path, version, name), content, { mode: 0o400 });
    }
  }

  /** One rename: nobody sees a moment between the versions. */
  show(version: string): void {
    symlinkSync(version, join(this.path, '..tmp'));
    renameSync(join(this.path, '..tmp'), join(this.path, '..data'));
  }

  link(...names: readonly string[]): void {
    for (const name of names) symlinkSync(`..data/${name}`, join(this.path, name));
  }
}

const names: Record<FileLayout, { cert: string; key: string; ca: string }> = {
  'cert-manager': { cert: 'tls.crt', key: 'tls.key', ca: 'ca.crt' },
  'spiffe-helper': { cert: 'svid.pem', key: 'svid_key.pem', ca: 'svid_bundle.pem' },
};

function filesOf(identity: IssuedIdentity, ca: string, layout: FileLayout = 'cert-manager'): Record<string, string> {
  const { cert, key, ca: bundle } = names[layout];
  return { [cert]: identity.certificatePem, [key]: identity.privateKeyPem, [bundle]: ca };
}

let folder: TemporaryFolder;
let mount: MountedSecret;
let options: DirectoryOptions;
beforeEach(() => {
  folder = temporaryFolder();
  mount = new MountedSecret(join(folder.path, 'tls'));
  options = { directory: mount.path, layout: 'cert-manager' };
});
afterEach(() => {
  sinon.restore();
  folder[Symbol.dispose]();
});

function mountFirst(): void {
  mount.write('..v1', filesOf(prod.issue({ id: web }), prod.bundlePem));
  mount.show('..v1');
  mount.link('tls.crt', 'tls.key', 'ca.crt');
}

async function problems(): Promise<string[]> {
  return (await tls.fromFiles(options).check()).map(({ id, path, problem }) => `${id} at ${path}: ${problem}`);
}

/**
 * Swaps in another process, so that it happens between any two steps of a read, and as Kubernetes does it: into a new folder,
 * and the one before goes. The last version shown is a copy of `..v0`.
 */
function swapScript(path: string, swaps: number): string {
  return `
    import { cpSync, renameSync, rmSync, symlinkSync } from 'node:fs';
    process.chdir(${JSON.stringify(path)});
    const pause = new Int32Array(new SharedArrayBuffer(4));
    for (let swap = 1; swap <= ${swaps}; swap++) {
      cpSync('..v' + (swap % 4), '..copy' + swap, { recursive: true });
      symlinkSync('..copy' + swap, '..tmp');
      renameSync('..tmp', '..data');
      rmSync('..copy' + (swap - 1), { recursive: true, force: true });
      Atomics.wait(pause, 0, 0, (swap * 7) % 5);
    }`;
}

/** The files changed each time they were read. */
function onlyForHaste(error: unknown): undefined {
  assert.ok(error instanceof InsecureConfigurationError);
  for (const { problem } of error.violations) assert.match(problem, /change faster than they can be read/);
}

describe('a folder that another program fills', () => {
  for (const layout of ['cert-manager', 'spiffe-helper'] as const) {
    it(`is read in the layout of ${layout}`, async () => {
      for (const [name, content] of Object.entries(filesOf(prod.issue({ id: web }), prod.bundlePem, layout))) {
        writeFileSync(join(mount.path, name), content, { mode: 0o600 });
      }
      const handle = await tls.fromFiles({ directory: mount.path, layout }).open(recorder());
      assert.equal(handle.current().identity.toString(), web);
      handle.close();
    });
  }

  it('may have its roots elsewhere', async () => {
    mountFirst();
    rmSync(join(mount.path, 'ca.crt'));
    assert.match(String(await problems()), /^tls-file-unreadable at tls\.ca/);
    options = { ...options, ca: folder.write('roots.pem', prod.bundlePem) };
    assert.deepEqual(await problems(), []);
  });

  it('refuses a layout that nobody knows, and files named beside it', async () => {
    const wrong = { directory: mount.path, layout: 'istio', cert: 'web.pem' };
    assert.deepEqual(
      (await tls.fromFiles(wrong as never).check()).map(({ id, path }) => `${id} at ${path}`),
      ['option-invalid at tls.layout', 'option-unknown at tls.cert'],
    );
  });

  it('is followed when Kubernetes swaps it', async () => {
    mountFirst();
    const handle = await tls.fromFiles(options).open(recorder());
    const next = prod.issue({ id: web });
    mount.write('..v2', filesOf(next, prod.bundlePem));
    mount.show('..v2');
    await eventually(() => assert.equal(handle.current().leaf.serialNumber, next.serial));
    handle.close();
  });

  it('never yields parts of two versions, in 1,000 swaps under way', async function () {
    this.timeout(60_000);
    // A root of its own in each version tells which one the bundle is from.
    const versions = Array.from({ length: 4 }, (_, index) => {
      const marker = createAuthority({ trustDomain: 'prod.acme', commonName: `version ${index}` });
      const identity = prod.issue({ id: web });
      mount.write(`..v${index}`, filesOf(identity, prod.bundlePem + marker.bundlePem));
      return { serial: identity.serial, marker: marker.bundlePem };
    });
    mount.show('..v0');
    mount.link('tls.crt', 'tls.key', 'ca.crt');
    const markerOf = new Map(versions.map(({ serial, marker }) => [serial, marker]));
    const isWhole = ({ leaf, bundles }: TlsMaterial) =>
      bundles.get('prod.acme')?.at(-1)?.toString() === markerOf.get(leaf.serialNumber);
    const context = recorder();
    const handle = await tls.fromFiles({ ...options, pollMs: 10 }).open(context);
    const seen: TlsMaterial[] = [handle.current()];
    handle.onChange((material) => seen.push(material));

    let running = true;
    const others = (async () => {
      while (running) {
        const other = await tls.fromFiles(options).open(recorder()).catch(onlyForHaste);
        if (!other) continue;
        seen.push(other.current());
        other.close();
      }
    })();
    const { code, stderr } = await runNode(['--input-type=module', '--eval', swapScript(mount.path, 1000)], {
      cwd: import.meta.dirname,
      timeoutMs: 50_000,
    });
    running = false;
    await others;
    assert.equal(code, 0, stderr);
    await eventually(() => assert.equal(handle.current().leaf.serialNumber, versions[0]?.serial), 5000);
    handle.close();

    assert.ok(seen.length > 5, `read ${seen.length} times`);
    assert.deepEqual(
      seen.filter((material) => !isWhole(material)),
      [],
    );
    // On a busy machine all reads of a second may be too slow; that is said, and nothing else is.
    for (const { detail } of context.of('rotation-failed')) assert.match(detail, /change faster than they can be read/);
  });
});

describe('the files of a mounted secret', () => {
  before(function () {
    if (process.getuid?.() !== 0) this.skip(); // only root can give files away
  });

  const pod = 12_345;
  const key = () => join(mount.path, 'tls.key');

  /** As whom the process is seen; the files belong to root. */
  function runAs(uid: number): void {
    sinon.stub(process, 'getuid').returns(uid);
  }

  beforeEach(() => {
    mountFirst();
    // The folder above belongs to the user of the process in a pod as well.
    chownSync(folder.path, 0, 0);
  });

  it('are accepted from root and one group: fsGroup gives them mode 0440', async () => {
    chownSync(join(mount.path, '..v1/tls.key'), 0, pod);
    chmodSync(join(mount.path, '..v1/tls.key'), 0o440);
    runAs(pod);
    assert.deepEqual((await readSafeFile(key(), { private: true })).findings, []);
  });

  it('T71 are refused when the group may write them, or others may read them', async () => {
    runAs(pod);
    for (const mode of [0o460, 0o444, 0o644]) {
      chmodSync(join(mount.path, '..v1/tls.key'), mode);
      const { findings } = await readSafeFile(key(), { private: true });
      assert.deepEqual(
        findings.map(({ danger }) => danger),
        ['exposed'],
      );
    }
  });

  it('T71 are refused with a group when they are of the own user, which could leave the group out', async () => {
    chmodSync(join(mount.path, '..v1/tls.key'), 0o440);
    assert.deepEqual(
      (await readSafeFile(key(), { private: true })).findings.map(({ danger }) => danger),
      ['exposed'],
    );
  });

  it('say which lines of the pod mend them', async () => {
    chmodSync(join(mount.path, '..v1/tls.key'), 0o644);
    const [problem] = await problems();
    assert.match(String(problem), /tls\.key has mode 0644; .*\(in the volume of the pod set defaultMode: 0400 and/);
  });
});
