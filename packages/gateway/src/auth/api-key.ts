import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { type Clock, InsecureConfigurationError, parseOptions, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import { isSpoofable } from '../edge/header-guard.js';
import type { EdgeRequest } from '../edge-request.js';
import type { Authenticator, AuthHandler, AuthResult } from './handler.js';
import { refused } from './token-authenticator.js';

/** What is known of a key. Not the key: whoever reads the store cannot use it. */
export interface ApiKeyRecord {
  /** First part of the key, by which it is found. Letters, digits, `-` and `_`. */
  readonly id: string;
  /** SHA-256 of the whole key, hexadecimal. Enough for keys of `newApiKey`, which nobody can guess; not for passwords. */
  readonly hash: string;
  /** Who holds it. Left out: the id. */
  readonly subject?: string;
  /** Default none. */
  readonly scopes?: readonly string[];
  readonly claims?: Readonly<Record<string, unknown>>;
  /** End of its validity, ms since the epoch. Left out: none. */
  readonly expiresAt?: number;
}

/** Where keys are kept. */
export interface ApiKeyStore {
  /** Stands for the issuer of its keys, e.g. in rate limits. Default `api-keys`. */
  readonly name?: string;
  /** The record of the id. What it rejects with is answered with 503. */
  find(id: string): Promise<ApiKeyRecord | undefined>;
}

export interface ApiKeyOptions {
  /** Header that holds the key. Default `x-api-key`. */
  readonly header?: string;
}

/** A new key of 256 random bits, for its holder alone, and what to keep of it. */
export function newApiKey(record: Omit<ApiKeyRecord, 'id' | 'hash'> & { readonly id?: string } = {}): {
  readonly key: string;
  readonly record: ApiKeyRecord;
} {
  const id = record.id ?? randomBytes(9).toString('base64url');
  const key = `${id}.${randomBytes(32).toString('base64url')}`;
  return { key, record: { ...record, id, hash: hashOf(key).toString('hex') } };
}

/**
 * Programs that hold a key. `keys` are their records, or a store that finds them.
 *
 * @example apiKey([record], { header: 'x-api-key' })
 */
export function apiKey(keys: readonly ApiKeyRecord[] | ApiKeyStore, options: ApiKeyOptions = {}): AuthHandler {
  return new ApiKeyHandler(keys, options);
}

const optionsSchema = z.strictObject({
  header: z
    .string()
    .regex(/^[a-z][a-z0-9-]*$/, 'expected a lower-case header name')
    .refine((name) => !isSpoofable(name), 'the gateway takes headers of this name from nobody')
    .default('x-api-key'),
});
const ID = /^[A-Za-z0-9_-]{1,64}$/;
/** The id, and 256 bits in base64url. */
const KEY = /^([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{43}$/;
const HASH = /^[0-9a-f]{64}$/;
const STORE_TIMEOUT_MS = 3000;
/** The last instant of a Date: a key that nobody has given an end is looked up for every request anyway. */
const NO_END = 8.64e15;

class ApiKeyHandler implements AuthHandler {
  readonly kind = 'api-key';
  readonly credentialHeaders: readonly string[];
  readonly #keys: readonly ApiKeyRecord[] | ApiKeyStore;
  readonly #options: unknown;

  constructor(keys: readonly ApiKeyRecord[] | ApiKeyStore, options: ApiKeyOptions) {
    this.#keys = keys;
    this.#options = options;
    const { value } = parseOptions(optionsSchema, options, 'apiKey');
    this.credentialHeaders = value ? [value.header] : [];
  }

  async check(): Promise<readonly Violation[]> {
    const { violations } = parseOptions(optionsSchema, this.#options, 'apiKey');
    return [...violations, ...storeViolations(this.#keys)];
  }

  async open({ clock }: { readonly clock: Clock }): Promise<Authenticator> {
    const found = await this.check();
    const { value } = parseOptions(optionsSchema, this.#options, 'apiKey');
    if (found.length > 0 || !value) throw new InsecureConfigurationError('apiKey', found);
    return new ApiKeyAuthenticator(storeOf(this.#keys), value.header, clock);
  }
}

class ApiKeyAuthenticator implements Authenticator {
  readonly challenges: readonly string[];
  readonly #store: ApiKeyStore;
  readonly #header: string;
  readonly #clock: Clock;

  constructor(store: ApiKeyStore, header: string, clock: Clock) {
    this.#store = store;
    this.#header = header;
    this.#clock = clock;
    this.challenges = [`ApiKey header="${header}"`];
  }

  async authenticate({ headers }: EdgeRequest): Promise<AuthResult> {
    const key = headers[this.#header];
    if (key === undefined) return { outcome: 'absent' };
    const id = KEY.exec(key)?.[1];
    if (id === undefined) return refused(401, 'it has not the form of a key');
    let record: ApiKeyRecord | undefined;
    try {
      record = await this.#find(id);
    } catch {
      // The text of a foreign error may hold anything.
      return refused(503, 'the store of the keys cannot be asked');
    }
    // As long for an id that there is not as for a wrong key: nobody learns which ids there are.
    const isGenuine = timingSafeEqual(hashOf(key), Buffer.from(record?.hash ?? '0'.repeat(64), 'hex'));
    if (!record || record.id !== id || !isGenuine) return refused(401, 'there is no such key');
    const { subject = id, scopes = [], claims = {}, expiresAt = NO_END } = record;
    if (expiresAt <= this.#clock.now()) return refused(401, `the key ${id} has expired`);
    const issuer = this.#store.name ?? 'api-keys';
    const principal = { subject, issuer, scopes: new Set(scopes), claims, expiresAt, method: 'api-key' };
    return { outcome: 'authenticated', principal };
  }

  async close(): Promise<void> {}

  async #find(id: string): Promise<ApiKeyRecord | undefined> {
    let timer: { cancel(): void } | undefined;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = this.#clock.after(STORE_TIMEOUT_MS, () => reject(new Error('late')));
      });
      const record = await Promise.race([this.#store.find(id), late]);
      if (record !== undefined && !HASH.test(record.hash)) throw new TypeError('no hash');
      return record;
    } finally {
      timer?.cancel();
    }
  }
}

function storeViolations(keys: unknown): Violation[] {
  if (!Array.isArray(keys)) {
    const isStore = typeof (keys as ApiKeyStore | null)?.find === 'function';
    return isStore ? [] : [violation('option-invalid', 'apiKey', 'expected a list of records, or a store with find()')];
  }
  const ids = new Set<unknown>();
  return keys.flatMap((record: Partial<ApiKeyRecord> | null, index) => {
    const path = `apiKey[${index}]`;
    if (!HASH.test(`${record?.hash}`)) {
      const problem = 'expected the SHA-256 of the key in hexadecimal, as newApiKey gives it; never the key itself';
      return [violation('secret-literal', `${path}.hash`, problem)];
    }
    if (!ID.test(`${record?.id}`) || ids.has(record?.id)) {
      return [violation('option-invalid', `${path}.id`, 'expected an id of its own: letters, digits, "-" and "_"')];
    }
    ids.add(record?.id);
    return [];
  });
}

function storeOf(keys: readonly ApiKeyRecord[] | ApiKeyStore): ApiKeyStore {
  if (!Array.isArray(keys)) return keys as ApiKeyStore;
  const byId = new Map((keys as readonly ApiKeyRecord[]).map((record) => [record.id, record]));
  return { find: async (id) => byId.get(id) };
}

function hashOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
