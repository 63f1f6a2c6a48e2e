import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { type Asn1, bitString, encode, sequence } from './asn1.js';
import { PkiError } from './errors.js';
import { signatureAlgorithm, signatureDigest } from './keys.js';

/**
 * A key that signs but cannot be read: in an HSM behind PKCS#11, or in the key service of a cloud. P-256, P-384 or Ed25519.
 */
export interface Signer {
  /** PEM (SPKI) or a key object. */
  readonly publicKey: KeyObject | string;
  /**
   * The signature over `content`, which is what is to be signed and no hash of it: ECDSA with SHA-256 (P-256) or SHA-384
   * (P-384) as DER (RFC 3279 section 2.2.3; PKCS#11 gives r and s, which have to be wrapped), or Ed25519. Should answer
   * within seconds; what takes longer than 10 s counts as failed.
   */
  sign(content: Uint8Array): Promise<Uint8Array>;
}

/** The key of an authority, wherever it is. */
export interface SigningKey {
  readonly publicKey: KeyObject;
  sign(content: Uint8Array): Promise<Uint8Array>;
}

const SIGNER_TIMEOUT_MS = 10_000;

export function localKey(privateKey: KeyObject): SigningKey {
  const digest = signatureDigest(privateKey);
  return {
    publicKey: createPublicKey(privateKey),
    sign: async (content) => sign(digest, content, privateKey),
  };
}

/**
 * Takes a signature only when it verifies: a broken device must not hand out certificates that nobody accepts. Throws a
 * `PkiError`: `algorithm-unknown` for a key that cannot sign certificates; `sign` rejects with `signer-failed`.
 */
export function foreignKey(signer: Signer): SigningKey {
  const publicKey = typeof signer.publicKey === 'string' ? createPublicKey(signer.publicKey) : signer.publicKey;
  const digest = signatureDigest(publicKey);
  return {
    publicKey,
    async sign(content) {
      const signature = await inTime(signer, content);
      if (verify(digest, content, publicKey, signature)) return signature;
      throw new PkiError('signer-failed', 'the signer gave a signature that does not verify with its public key');
    },
  };
}

/** As `signed` of keys.ts, with a key that may be elsewhere. */
export async function signedBy(content: Asn1, { publicKey, sign }: SigningKey): Promise<Buffer> {
  const signature = await sign(encode(content));
  return encode(sequence(content, signatureAlgorithm(publicKey), bitString(signature)));
}

async function inTime(signer: Signer, content: Uint8Array): Promise<Uint8Array> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer in time')), SIGNER_TIMEOUT_MS);
    timer.unref();
  });
  try {
    const signature: unknown = await Promise.race([signer.sign(content), late]);
    if (signature instanceof Uint8Array) return signature;
  } catch {
    // Its text is foreign: it may hold PINs or tokens.
  } finally {
    clearTimeout(timer);
  }
  throw new PkiError('signer-failed', 'the signer did not sign');
}
