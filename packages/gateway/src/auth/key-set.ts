import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';

/** The key that verifies a token, by its header. */
export type VerifyingKey = Awaited<ReturnType<JWTVerifyGetKey>>;

/** Where the keys of an issuer come from. */
export interface KeySource {
  /** Grows with every change of the keys: what was verified by others proves nothing any more. */
  readonly generation: number;
  /** Rejects with KeyUnknownError or KeysUnavailableError. */
  find: (header: KeyQuery) => Promise<VerifyingKey>;
  /** Twice is harmless. */
  close(): void;
}

export type KeyQuery = Parameters<JWTVerifyGetKey>[0];

/** No key of the issuer fits the header of the token. */
export class KeyUnknownError extends Error {
  override readonly name = 'KeyUnknownError';
}

/** The keys are too old to judge by, and new ones cannot be had. */
export class KeysUnavailableError extends Error {
  override readonly name = 'KeysUnavailableError';
}

/** A set of keys that cannot be used as a whole. */
export class KeySetError extends Error {
  override readonly name = 'KeySetError';
  readonly id: 'auth-key-private' | 'auth-key-weak' | 'option-invalid';

  constructor(id: KeySetError['id'], message: string) {
    super(message);
    this.id = id;
  }
}

/** Keys of one moment. */
export class KeySet {
  /** Differs exactly when the keys do. */
  readonly text: string;
  readonly #find: ReturnType<typeof createLocalJWKSet>;

  /** Throws KeySetError for what is no JWK set (RFC 7517 section 5), and for a key that is private or weak. */
  constructor(value: unknown) {
    const keys = usableKeys(value);
    this.text = JSON.stringify(keys);
    this.#find = createLocalJWKSet({ keys } as JSONWebKeySet);
  }

  /** Rejects with KeyUnknownError. */
  async find(header: KeyQuery): Promise<VerifyingKey> {
    try {
      return await this.#find(header);
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey) throw new KeyUnknownError('no key of the issuer fits the token');
      if (error instanceof errors.JWKSMultipleMatchingKeys) {
        throw new KeyUnknownError('the token does not say which of several keys of the issuer has signed it');
      }
      throw error;
    }
  }
}

/** Keys that stand in the configuration. */
export function localKeys(set: Pick<KeySet, 'find'>): KeySource {
  return { generation: 0, find: (header) => set.find(header), close: () => {} };
}

type Jwk = Readonly<Record<string, unknown>>;

const MAX_KEYS = 100;
const MIN_RSA_BITS = 2048;
/** RFC 7518 section 6: the members that make a key a private one. */
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];
const STRONG_CURVES: ReadonlySet<unknown> = new Set(['P-256', 'P-384', 'P-521', 'Ed25519']);

function usableKeys(value: unknown): readonly Jwk[] {
  const keys = (value as { readonly keys?: unknown } | null)?.keys;
  if (!Array.isArray(keys)) throw new KeySetError('option-invalid', 'it is no JWK set');
  if (keys.length > MAX_KEYS) throw new KeySetError('option-invalid', `it holds more than ${MAX_KEYS} keys`);
  // Keys for encryption, and of kinds that we do not know, are none of our business (RFC 7517 section 5).
  const ours = keys.filter(
    (key: Jwk | null) => key?.use !== 'enc' && ['RSA', 'EC', 'OKP', 'oct'].includes(`${key?.kty}`),
  );
  if (ours.length === 0) throw new KeySetError('option-invalid', 'it holds no key that verifies');
  for (const key of ours) judgeKey(key);
  return ours;
}

/** Throws KeySetError for a key that nobody must verify by. */
export function judgeKey(key: Jwk): void {
  if (key.kty === 'oct' || PRIVATE_MEMBERS.some((member) => member in key)) {
    throw new KeySetError('auth-key-private', 'it holds a private or symmetric key');
  }
  if (key.kty === 'RSA' ? rsaBits(key.n) < MIN_RSA_BITS : !STRONG_CURVES.has(key.crv)) {
    throw new KeySetError('auth-key-weak', `a key of it is ${key.kty} of ${key.crv ?? `${rsaBits(key.n)} bits`}`);
  }
}

function rsaBits(modulus: unknown): number {
  const hex = typeof modulus === 'string' ? Buffer.from(modulus, 'base64url').toString('hex').replace(/^0+/, '') : '';
  return hex === '' ? 0 : hex.length * 4 - (Math.clz32(Number.parseInt(hex.charAt(0), 16)) - 28);
}
