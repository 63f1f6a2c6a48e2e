import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { bitsOf, decode, encode, integer, membersOf, oid, oidOf, sequence, set, tagged } from './asn1.js';
import { PkiError } from './errors.js';
import { subjectAltName } from './extensions.js';
import { generateKeys, type KeyAlgorithm, privateKeyPem, publicKeyInfo, refuseWeakKey, signed } from './keys.js';
import { distinguishedName } from './names.js';
import { oids } from './oids.js';
import { fromPem, toPem } from './pem.js';
import { parseWorkloadId } from './workload-id.js';

export interface CsrOptions {
  /** The SPIFFE id to ask for, `spiffe://prod.acme/svc/web`. An authority decides for itself what it grants. */
  readonly id: string;
  /** Left out: P-256. */
  readonly algorithm?: KeyAlgorithm;
}

export interface PendingIdentity {
  readonly csrPem: string;
  /** PKCS#8. Not enumerable: it shows neither in JSON nor in `util.inspect`. */
  readonly privateKeyPem: string;
}

/** What an authority takes from a request: the key, of which the sender has proved possession. No names. */
export interface CertificateRequest {
  readonly publicKey: KeyObject;
}

/** Far above every request with an acceptable key, far below what it would cost to parse anything. */
const MAX_CSR_CHARACTERS = 16_384;

/** A new key and a PKCS#10 request for it (RFC 2986). Throws a `PkiError` with code `id-malformed`. */
export function createCsr({ id, algorithm }: CsrOptions): PendingIdentity {
  const { privateKey, publicKey } = generateKeys(algorithm);
  const names = subjectAltName([{ uri: parseWorkloadId(id).toString() }], true);
  const attribute = sequence(oid(oids.extensionRequest), set(sequence(names)));
  const content = sequence(integer(0n), distinguishedName({}), publicKeyInfo(publicKey), tagged(0, attribute));
  const pending = { csrPem: toPem('CERTIFICATE REQUEST', signed(content, privateKey)) };
  return Object.defineProperty(pending as PendingIdentity, 'privateKeyPem', { value: privateKeyPem(privateKey) });
}

/**
 * Reads a request of unknown origin. Throws a `PkiError` with code `csr-malformed`, `key-weak`, or `csr-signature` if it is
 * not signed with the key it carries.
 */
export function parseCsr(csrPem: string): CertificateRequest {
  const { content, info, algorithm, signature } = fields(csrPem);
  const publicKey = readPublicKey(info);
  refuseWeakKey(publicKey);
  if (!verifies(algorithm, content, publicKey, signature)) {
    throw new PkiError('csr-signature', 'the request is not signed with SHA-2 by the key it carries');
  }
  return { publicKey };
}

interface CsrFields {
  readonly content: Buffer;
  readonly info: Buffer;
  readonly algorithm: string;
  readonly signature: Buffer;
}

function fields(csrPem: string): CsrFields {
  if (typeof csrPem !== 'string' || csrPem.length > MAX_CSR_CHARACTERS) {
    throw new PkiError('csr-malformed', `a request is PEM of at most ${MAX_CSR_CHARACTERS} characters`);
  }
  try {
    const [content, algorithm, signature, ...rest] = membersOf(decode(fromPem('CERTIFICATE REQUEST', csrPem)));
    const [, , info] = membersOf(content);
    if (content === undefined || info === undefined || rest.length > 0) throw new Error('not a request');
    return {
      content: encode(content),
      info: encode(info),
      algorithm: oidOf(membersOf(algorithm)[0]),
      signature: bitsOf(signature),
    };
  } catch (cause) {
    throw new PkiError('csr-malformed', 'the request is not a PKCS#10 request in PEM', { cause });
  }
}

function readPublicKey(info: Buffer): KeyObject {
  try {
    return createPublicKey({ key: info, type: 'spki', format: 'der' });
  } catch (cause) {
    throw new PkiError('csr-malformed', 'the key of the request cannot be read', { cause });
  }
}

/** SHA-2 only: a request signed with less proves little. */
const SIGNATURE_SCHEMES = new Map<string, { readonly kind: string; readonly digest: string | null }>([
  [oids.ecdsaWithSha256, { kind: 'ec', digest: 'sha256' }],
  [oids.ecdsaWithSha384, { kind: 'ec', digest: 'sha384' }],
  [oids.ecdsaWithSha512, { kind: 'ec', digest: 'sha512' }],
  [oids.sha256WithRsa, { kind: 'rsa', digest: 'sha256' }],
  [oids.sha384WithRsa, { kind: 'rsa', digest: 'sha384' }],
  [oids.sha512WithRsa, { kind: 'rsa', digest: 'sha512' }],
  [oids.ed25519, { kind: 'ed25519', digest: null }],
]);

function verifies(algorithm: string, content: Buffer, key: KeyObject, signature: Buffer): boolean {
  const scheme = SIGNATURE_SCHEMES.get(algorithm);
  if (scheme === undefined || scheme.kind !== key.asymmetricKeyType) return false;
  return verify(scheme.digest, content, key, signature);
}
