import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { bitStringOf, children, readOnly, Tag } from '@sallyport/core/spi';
import { type Asn1, bitString, encode, encoded, oid, sequence } from './asn1.js';
import { PkiError } from './errors.js';
import { oids } from './oids.js';

export type KeyAlgorithm = 'P-256' | 'P-384' | 'Ed25519';

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export function generateKeys(algorithm: KeyAlgorithm = 'P-256'): KeyPair {
  switch (algorithm) {
    case 'P-256':
    case 'P-384':
      return generateKeyPairSync('ec', { namedCurve: algorithm });
    case 'Ed25519':
      return generateKeyPairSync('ed25519');
    default:
      throw new PkiError('algorithm-unknown', `key algorithm ${algorithm} is not one of P-256, P-384 and Ed25519`);
  }
}

export function privateKeyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/**
 * Keys whose bytes say what they are: P-256 and P-384, uncompressed, in DER. To write one out again
 * costs OpenSSL more than to verify a signature, so the bytes are kept.
 */
const canonical = new WeakMap<KeyObject, Buffer>();

const CANONICAL_FORMS = [
  { crv: 'P-256', prefix: Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex'), bytes: 32 },
  { crv: 'P-384', prefix: Buffer.from('3076301006072a8648ce3d020106052b8104002203620004', 'hex'), bytes: 48 },
] as const;

/** Reads a `SubjectPublicKeyInfo`. Throws what OpenSSL has against it: a point beside its curve, for example. */
export function readPublicKey(spki: Uint8Array): KeyObject {
  const der = Buffer.from(spki);
  const form = CANONICAL_FORMS.find(
    ({ prefix, bytes }) => der.length === prefix.length + 2 * bytes && der.subarray(0, prefix.length).equals(prefix),
  );
  if (form === undefined) return createPublicKey({ key: der, type: 'spki', format: 'der' });
  const { crv, prefix, bytes } = form;
  const x = der.toString('base64url', prefix.length, prefix.length + bytes);
  const y = der.toString('base64url', prefix.length + bytes);
  // OpenSSL takes twice as long to find out by itself what kind of key it has before it.
  const key = createPublicKey({ key: { kty: 'EC', crv, x, y }, format: 'jwk' });
  canonical.set(key, der);
  return key;
}

/** `SubjectPublicKeyInfo` (RFC 5280 section 4.1). */
export function publicKeyInfo(publicKey: KeyObject): Asn1 {
  return encoded(spkiDer(publicKey));
}

/** 160 bits of SHA-256 over the key bits (RFC 7093 section 2, method 1): RFC 5280's own proposal is SHA-1. */
export function keyIdentifier(publicKey: KeyObject): Buffer {
  const [, bits] = children(readOnly(spkiDer(publicKey), Tag.SEQUENCE));
  if (bits === undefined) throw new TypeError('a public key without key bits');
  return createHash('sha256').update(bitStringOf(bits)).digest().subarray(0, 20);
}

/** `AlgorithmIdentifier` of the signatures this key, given by either of its halves, makes. */
export function signatureAlgorithm(key: KeyObject): Asn1 {
  return sequence(oid(signatureOf(key).oid));
}

/** What certificates, requests and lists have in common: `SEQUENCE { content, algorithm, signature }`, in DER. */
export function signed(content: Asn1, key: KeyObject): Buffer {
  const signature = sign(signatureDigest(key), encode(content), key);
  return encode(sequence(content, signatureAlgorithm(key), bitString(signature)));
}

/** The hash that goes with it; null where the algorithm brings its own. Throws a `PkiError` with code `algorithm-unknown`. */
export function signatureDigest(key: KeyObject): string | null {
  return signatureOf(key).digest;
}

/** Refuses keys that an attacker may break, and kinds that not every TLS peer of ours can use. */
export function refuseWeakKey(publicKey: KeyObject): void {
  if (canonical.has(publicKey)) return;
  const kind = publicKey.asymmetricKeyType;
  const { namedCurve, modulusLength = 0, publicExponent = 0n } = publicKey.asymmetricKeyDetails ?? {};
  if (kind === 'ed25519') return;
  if (kind === 'ec' && (namedCurve === 'prime256v1' || namedCurve === 'secp384r1')) return;
  if (kind === 'rsa' && modulusLength >= 2048 && modulusLength <= 8192 && publicExponent >= 65_537n) return;
  const found =
    kind === 'ec'
      ? `on ${namedCurve ?? 'a curve without a name'}`
      : kind === 'rsa'
        ? `RSA of ${modulusLength} bits`
        : kind;
  throw new PkiError('key-weak', `the key is ${found}; use P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits`);
}

function spkiDer(publicKey: KeyObject): Buffer {
  return canonical.get(publicKey) ?? publicKey.export({ type: 'spki', format: 'der' });
}

function signatureOf(key: KeyObject): { readonly oid: string; readonly digest: string | null } {
  if (key.asymmetricKeyType === 'ed25519') return { oid: oids.ed25519, digest: null };
  switch (key.asymmetricKeyDetails?.namedCurve) {
    case 'prime256v1':
      return { oid: oids.ecdsaWithSha256, digest: 'sha256' };
    case 'secp384r1':
      return { oid: oids.ecdsaWithSha384, digest: 'sha384' };
    default:
      throw new PkiError('algorithm-unknown', 'an authority signs with P-256, P-384 or Ed25519');
  }
}
