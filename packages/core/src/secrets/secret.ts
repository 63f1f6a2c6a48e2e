import { inspect } from 'node:util';
import { systemClock, type Timer } from '../clock.js';
import { readSafeFile } from '../files/file-safety.js';
import { type Violation, violation } from '../policy/violation.js';
import { rememberSecret } from './redaction.js';

const STORE_TIMEOUT_MS = 10_000;

/** A place that hands out credentials by key, e.g. a client of a vault. */
export interface SecretStore {
  /** For messages; default `store`. */
  readonly name?: string;
  /**
   * The current value, or undefined if there is none. Must not answer from a cache that outlives a rotation. The message of a
   * SecretUnavailableError is passed on, that of any other error is not.
   */
  get(key: string): Promise<string | undefined>;
}

/** Where credentials come from. None of these throws; what is wrong shows in `check()`. */
export const secret = {
  /** An environment variable, e.g. `secret.env('CONSUL_HTTP_TOKEN')`. */
  env: (name: string): Secret => new Secret(envSource(name)),
  /** A file that only the user of the process may read. One line break at its end does not belong to the secret. */
  file: (path: string): Secret => new Secret(fileSource(path)),
  /** A store of your own. It is given 10 s to answer. */
  from: (store: SecretStore, key: string): Secret => new Secret(storeSource(store, key)),
} as const;

/** The secret could not be read. The message says which and why, and never holds its value. */
export class SecretUnavailableError extends Error {
  override readonly name = 'SecretUnavailableError';
  readonly code = 'SALLYPORT_SECRET_UNAVAILABLE';
}

interface Source {
  /** `env:CONSUL_HTTP_TOKEN`, `file:/run/secrets/token`, `store:key` */
  readonly description: string;
  load(): Promise<Loaded>;
}

type Loaded =
  | { readonly value: string }
  | { readonly id: 'secret-unavailable' | 'secret-file-exposed'; readonly problem: string };

/**
 * A credential that is named, not held: it prints as `[secret env:NAME]` everywhere, and every `read` asks its source
 * anew, so that it may rotate.
 */
export class Secret {
  readonly #source: Source;

  constructor(source: Source) {
    this.#source = source;
  }

  static is(value: unknown): value is Secret {
    return typeof value === 'object' && value !== null && #source in value;
  }

  /** The current value. Rejects with SecretUnavailableError. From now on `redactSecrets` masks it. */
  async read(): Promise<string> {
    const loaded = await this.#load();
    if ('value' in loaded) return loaded.value;
    throw new SecretUnavailableError(`${this}: ${loaded.problem}`);
  }

  /** Reads it once, without giving it away. `path` is the option that holds it. */
  async check(path = this.describe()): Promise<Violation[]> {
    const loaded = await this.#load();
    return 'value' in loaded ? [] : [violation(loaded.id, path, `${this}: ${loaded.problem}`)];
  }

  /** Where it comes from: `env:CONSUL_HTTP_TOKEN`. */
  describe(): string {
    return this.#source.description;
  }

  toString(): string {
    return `[secret ${this.describe()}]`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }

  async #load(): Promise<Loaded> {
    const loaded = await this.#source.load();
    if (!('value' in loaded)) return loaded;
    if (loaded.value === '') return { id: 'secret-unavailable', problem: 'it is empty' };
    rememberSecret(loaded.value, this.toString());
    return loaded;
  }
}

export function isSecret(value: unknown): value is Secret {
  return Secret.is(value);
}

function envSource(name: string): Source {
  // Whoever passes the secret itself where its name belongs must not find it in a message.
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(name)) {
    const problem = 'secret.env takes the name of an environment variable';
    return { description: 'env:?', load: async () => ({ id: 'secret-unavailable', problem }) };
  }
  return {
    description: `env:${name}`,
    async load() {
      const value = process.env[name];
      return value === undefined ? { id: 'secret-unavailable', problem: 'the variable is not set' } : { value };
    },
  };
}

function fileSource(path: string): Source {
  return {
    description: `file:${path}`,
    async load() {
      const { text, findings } = await readSafeFile(path, { private: true });
      if (text !== undefined) return { value: text.replace(/\r?\n$/, '') };
      const exposed = findings.find((f) => f.danger !== 'unreadable');
      if (exposed) return { id: 'secret-file-exposed', problem: exposed.problem };
      return { id: 'secret-unavailable', problem: findings[0]?.problem ?? 'it cannot be read' };
    },
  };
}

function storeSource(store: SecretStore, key: string): Source {
  return {
    description: `${store?.name ?? 'store'}:${key}`,
    async load() {
      let timer: Timer | undefined;
      try {
        const late = new Promise<typeof LATE>((resolve) => {
          timer = systemClock.after(STORE_TIMEOUT_MS, () => resolve(LATE));
        });
        const value = await Promise.race([store.get(key), late]);
        if (value === LATE) return { id: 'secret-unavailable', problem: `no answer within ${STORE_TIMEOUT_MS} ms` };
        return typeof value === 'string'
          ? { value }
          : { id: 'secret-unavailable', problem: 'the store has no such key' };
      } catch (error) {
        // The text of a foreign error may hold the credential with which the store was asked.
        const problem = error instanceof SecretUnavailableError ? error.message : 'the store failed';
        return { id: 'secret-unavailable', problem };
      } finally {
        timer?.cancel();
      }
    },
  };
}

const LATE = Symbol('late');
