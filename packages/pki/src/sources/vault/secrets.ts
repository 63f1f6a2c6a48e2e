import { type Secret, type SecretStore, SecretUnavailableError, secret } from '@sallyport/core';
import { parseOptions, systemClock } from '@sallyport/core/spi';
import { z } from 'zod';
import { type VaultConnectionOptions, vaultStoreSchema } from './options.js';
import { VaultError } from './refusal.js';
import { VaultRequests } from './requests.js';
import { parsed, VaultSession } from './session.js';

export interface VaultStoreOptions extends VaultConnectionOptions {
  /** Where the KV secrets engine, version 2, is mounted. Default `secret`. */
  readonly mount?: string;
}

/**
 * Secrets of Vault or OpenBao (KV version 2) for `secret.from`. A key names path and field: `orders/db#password`. Each read
 * asks Vault anew. The login is kept and renewed as it is used. Never throws; what is wrong shows in `check()`.
 */
export function vaultStore(options: VaultStoreOptions): SecretStore {
  const known = stores.get(options);
  if (known) return known;
  const { value, violations } = parseOptions(vaultStoreSchema, options, 'secret.vault');
  const store = value
    ? new VaultStore(value)
    : unusable(violations.map(({ path, problem }) => `${path}: ${problem}`).join('; '));
  if (typeof options === 'object' && options !== null) stores.set(options, store);
  return store;
}

/** One field of one secret in Vault: `vaultSecret(options, 'orders/db#password')`. The same options share one login. */
export function vaultSecret(options: VaultStoreOptions, key: string): Secret {
  return secret.from(vaultStore(options), key);
}

const stores = new WeakMap<object, SecretStore>();

class VaultStore implements SecretStore {
  readonly name: string;
  readonly #mount: string;
  readonly #session: VaultSession;

  constructor({ mount, ...connection }: z.output<typeof vaultStoreSchema>) {
    this.name = `vault:${mount}`;
    this.#mount = mount;
    const requests = new VaultRequests(connection);
    this.#session = new VaultSession({ requests, auth: connection.auth, clock: systemClock });
  }

  async get(key: string): Promise<string | undefined> {
    const [, path, field] = KEY.exec(key) ?? [];
    if (path === undefined || field === undefined) {
      throw new SecretUnavailableError('a key names path and field, "orders/db#password"');
    }
    try {
      const answer = await this.#session.ask({ path: `${this.#mount}/data/${path}` });
      const value = parsed(kvAnswer, answer).data.data[field];
      if (value === undefined || typeof value === 'string') return value;
    } catch (error) {
      throw new SecretUnavailableError(error instanceof VaultError ? error.message : 'Vault could not be asked');
    }
    throw new SecretUnavailableError('the field does not hold text');
  }
}

/** Steps of a path may hold what needs no escape in an address; none may lead out of the mount. */
const KEY = /^((?!\.{1,2}(?:\/|#))[\w.~-]+(?:\/(?!\.{1,2}(?:\/|#))[\w.~-]+)*)#([^#]+)$/;

const kvAnswer = z.object({ data: z.object({ data: z.record(z.string(), z.unknown()) }) });

function unusable(problem: string): SecretStore {
  return {
    name: 'vault',
    get: async () => {
      throw new SecretUnavailableError(problem);
    },
  };
}
