import { chmodSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Authority, IssuedIdentity } from '@sallyport/pki';
import { IssuedSource } from '@sallyport/testing';
import { type Service, type TlsSource, tls } from 'sallyport';

/** Between the two files of a pair; longer than the watcher's debounce, so that the half of it is seen. */
const BETWEEN_FILES_MS = 60;

/** One identity and how its certificates change. Each change resolves when the services on its source use it. */
export interface Party {
  readonly source: TlsSource;
  /** Puts these trust anchors in place of the current ones. */
  trust(bundlePem: string): Promise<void>;
  /** Takes a new key and a leaf of this authority. */
  renew(authority: Authority): Promise<void>;
}

/** Certificates in memory, swapped in one go. */
export function partyInMemory(id: string, authority: Authority): Party {
  let identity = authority.issue({ id });
  let bundlePem = authority.bundlePem;
  const source = new IssuedSource({ identity, bundlePem });
  return {
    source,
    async trust(pem) {
      bundlePem = pem;
      source.rotate({ identity, bundlePem });
    },
    async renew(issuer) {
      identity = issuer.issue({ id });
      source.rotate({ identity, bundlePem });
    },
  };
}

export interface FileParty extends Party {
  /** The service that says when it has taken the new files over. */
  service: Service | undefined;
}

/** Certificates in files, replaced in turn by renaming and by writing over them in pieces, key and certificate apart. */
export function partyInFiles(id: string, authority: Authority, folder: string): FileParty {
  const files = { cert: join(folder, 'leaf.pem'), key: join(folder, 'leaf.key'), ca: join(folder, 'bundle.pem') };
  const first = authority.issue({ id });
  writeFileSync(files.cert, first.certificatePem);
  writeFileSync(files.key, first.privateKeyPem, { mode: 0o600 });
  writeFileSync(files.ca, authority.bundlePem);
  let renewals = 0;

  const party: FileParty = {
    source: tls.fromFiles({ ...files, pollMs: 1000 }),
    service: undefined,
    async trust(bundlePem) {
      const taken = rotation(party.service);
      replace(files.ca, bundlePem);
      await taken;
    },
    async renew(issuer) {
      const taken = rotation(party.service);
      const identity = issuer.issue({ id });
      if (renewals++ % 2 === 0) await replacePair(identity);
      else await overwritePair(identity);
      await taken;
    },
  };
  return party;

  async function replacePair(identity: IssuedIdentity): Promise<void> {
    replace(files.cert, identity.certificatePem);
    await pause(BETWEEN_FILES_MS);
    replace(files.key, identity.privateKeyPem);
  }

  async function overwritePair(identity: IssuedIdentity): Promise<void> {
    writeFileSync(files.key, identity.privateKeyPem.slice(0, identity.privateKeyPem.length / 2));
    await pause(BETWEEN_FILES_MS);
    writeFileSync(files.key, identity.privateKeyPem);
    writeFileSync(files.cert, identity.certificatePem);
  }
}

function replace(path: string, content: string): void {
  const next = `${path}.next`;
  writeFileSync(next, content, { mode: 0o600 });
  chmodSync(next, 0o600);
  renameSync(next, path);
}

function rotation(service: Service | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!service) return reject(new TypeError('the party has no service that could tell'));
    const unsubscribe = service.on('rotated', () => {
      unsubscribe();
      resolve();
    });
  });
}
