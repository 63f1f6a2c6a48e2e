import type { Secret } from '@sallyport/core';
import {
  type Clock,
  parseOptions,
  readSafeFile,
  type TlsMaterial,
  type TlsSource,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { pause } from '../pause.js';
import { type FollowedMaterial, type Issuer, RenewingSource } from '../renewing-source.js';
import { VaultIssuer } from './issuer.js';
import {
  type FromVaultOptions,
  fromVaultSchema,
  type ResolvedAuth,
  type ResolvedFromVault,
  START_TIMEOUT_MS,
} from './options.js';
import { VaultRequests } from './requests.js';
import { VaultSession } from './session.js';

/**
 * Certificates from the PKI secrets engine of Vault or OpenBao. The key is made here and never leaves the process; Vault signs
 * requests for it, each time for a new key, and tells whom to trust and, if asked for, who is revoked.
 *
 * Roots and lists are looked at every `refreshMs`; whatever is wrong with what Vault answers, the last good material stays.
 * `check` looks at options, files and secrets, and asks Vault for nothing.
 */
export function fromVault(options: FromVaultOptions): TlsSource {
  const { value, violations } = parseOptions(fromVaultSchema, options, 'tls');
  return new RenewingSource({
    kind: 'vault',
    revocationGraceMs: value?.revocationGraceMs,
    startTimeoutMs: value?.startTimeoutMs ?? START_TIMEOUT_MS,
    check: async () => (value === undefined ? violations : await checkLocally(value)),
    issuer: (clock) => {
      if (value === undefined) throw new TypeError('these options were refused');
      return new VaultSource(value, clock);
    },
  });
}

class VaultSource implements Issuer {
  readonly #options: ResolvedFromVault;
  readonly #clock: Clock;
  readonly #requests: VaultRequests;
  readonly #session: VaultSession;
  readonly #vault: VaultIssuer;

  constructor(options: ResolvedFromVault, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
    this.#requests = new VaultRequests(options);
    this.#session = new VaultSession({ requests: this.#requests, auth: options.auth, clock });
    this.#vault = new VaultIssuer(options, this.#requests, this.#session);
  }

  obtain(_current: TlsMaterial | undefined, signal: AbortSignal) {
    return this.#vault.issue(signal);
  }

  objection({ identity }: TlsMaterial): string | undefined {
    const { id } = this.#options;
    return identity.equals(id) ? undefined : `Vault issued a certificate of ${identity}; asked for was ${id}`;
  }

  async follow(kept: FollowedMaterial, signal: AbortSignal): Promise<void> {
    this.#session.keepAlive();
    for (;;) {
      await pause(this.#clock, this.#options.refreshMs, signal);
      if (signal.aborted) break;
      try {
        const trust = await this.#vault.trust(signal);
        if (signal.aborted) break;
        kept.trusted(trust);
        kept.report.overcome();
      } catch (error) {
        if (!signal.aborted) kept.report.failed(error);
      }
    }
    this.#session.close();
    this.#requests.close();
  }
}

async function checkLocally({ ca, bundle, bundles, auth }: ResolvedFromVault): Promise<readonly Violation[]> {
  const found = await Promise.all([
    checkFile(ca, 'tls.ca'),
    ...(bundle === undefined ? [] : [checkFile(bundle, 'tls.bundle')]),
    ...Object.values(bundles).map((path) => checkFile(path, 'tls.bundles')),
    ...secretsOf(auth).map(([field, credential]) => credential.check(`tls.auth.${field}`)),
  ]);
  return found.flat();
}

async function checkFile(path: string, field: string): Promise<Violation[]> {
  const { findings } = await readSafeFile(path, { private: false });
  return findings.map(({ danger, problem }) =>
    violation(danger === 'unreadable' ? 'tls-file-unreadable' : 'tls-path-writable', field, problem),
  );
}

function secretsOf(auth: ResolvedAuth): [field: string, credential: Secret][] {
  switch (auth.method) {
    case 'approle':
      return [['secretId', auth.secretId]];
    case 'kubernetes':
      return auth.jwt ? [['jwt', auth.jwt]] : [];
    case 'token':
      return [['token', auth.token]];
  }
}
