import assert from 'node:assert/strict';
import { copyFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock, type WebTlsHandle, webTls } from '@sallyport/core/spi';
import { createAuthority, type IdentityFiles } from '@sallyport/pki';
import { eventually } from '../../../support/eventually.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

describe('the certificates of a public door', () => {
  const authority = createAuthority({ trustDomain: 'web.test' });
  let folder: TemporaryFolder;
  let handle: WebTlsHandle;
  let failures: string[];
  let used: IdentityFiles;
  let next: IdentityFiles;

  beforeEach(async () => {
    folder = temporaryFolder();
    failures = [];
    used = await written('used', 'old.test');
    next = await written('next', 'new.test');
    const { cert, key } = used;
    const events = { emit: (type: string, fields: object) => void failures.push(`${type} ${JSON.stringify(fields)}`) };
    handle = await webTls({ certificates: [{ cert, key }], pollMs: 10 }, 'tls').open({ events, clock: systemClock });
  });

  afterEach(() => {
    handle.close();
    folder[Symbol.dispose]();
  });

  const written = (name: string, dns: string) =>
    authority.issue({ id: `spiffe://web.test/svc/${name}`, dns: [dns] }).write(`${folder.path}/${name}`);
  const swap = (file: 'cert' | 'key') => copyFileSync(next[file], used[file]);

  it('are replaced by a pair whose files come one after the other, and nobody complains meanwhile', async () => {
    swap('cert');
    await delay(150);
    assert.ok(handle.covers('old.test'));

    swap('key');

    await eventually(() => assert.ok(handle.covers('new.test')));
    assert.ok(!handle.covers('old.test'));
    assert.deepEqual(failures, []);
  });

  it('stay the last good ones when the files remain broken, which is told once', async () => {
    writeFileSync(used.cert, 'no certificate');

    await eventually(() => assert.equal(failures.length, 1));
    await delay(100);

    assert.match(failures.join(), /^rotation-failed .*tls\.certificates\[0\]\.cert/);
    assert.ok(handle.covers('old.test'));
  });
});
