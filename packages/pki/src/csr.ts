import { type KeyObject, verify } from 'node:crypto';
import {
  bitStringOf,
  contextTag,
  DerError,
  DerReader,
  type DerValue,
  integerHexOf,
  oidOf,
  readOnly,
  Tag,
} from '@sallyport/core/spi';
import { type Asn1, integer, oid, sequence, set, tagged } from './asn1.js';
import { checkName, noRequest, type RequestedExtensions, readAttributes } from './csr-attributes.js';
import { PkiError } from './errors.js';
import { subjectAltName } from './extensions.js';
import {
  generateKeys,
  type KeyAlgorithm,
  type KeyPair,
  privateKeyPem,
  publicKeyInfo,
  readPublicKey,
  refuseWeakKey,
  signed,
} from './keys.js';
import { distinguishedName } from './names.js';
import { oids } from './oids.js';
import { fromPem, toPem } from './pem.js';
import { foreignKey, type Signer, signedBy } from './signer.js';
import { parseWorkloadId } from './workload-id.js';

export interface CsrOptions {
  /**
   * The SPIFFE id to ask for, `spiffe://prod.acme/svc/web`. Left out: none, for an authority that knows whom it has before
   * it, by a join token for example. An authority decides for itself what it grants.
   */
  readonly id?: string;
  /** Left out: P-256. */
  readonly algorithm?: KeyAlgorithm;
}

export interface PendingIdentity {
  readonly csrPem: string;
  /** PKCS#8. Not enumerable: it shows neither in JSON nor in `util.inspect`. */
  readonly privateKeyPem: string;
}

/** What an authority takes from a request: the key, of which the sender has proved possession. */
export interface CertificateRequest {
  readonly publicKey: KeyObject;
  /** For refusing whoever asks for too much; nothing of it goes into a certificate. */
  readonly requested: RequestedExtensions;
}

/** Far above every request with an acceptable key, far below what it would cost to parse anything. */
const MAX_CSR_CHARACTERS = 16_384;

/** A new key and a PKCS#10 request for it (RFC 2986). Throws a `PkiError` with code `id-malformed`. */
export function createCsr({ id, algorithm }: CsrOptions = {}): PendingIdentity {
  const keys = generateKeys(algorithm);
  const pending = { csrPem: createCsrFor(keys, id === undefined ? undefined : parseWorkloadId(id).toString()) };
  return Object.defineProperty(pending as PendingIdentity, 'privateKeyPem', { value: privateKeyPem(keys.privateKey) });
}

/** The same for a key that there is already, in PEM; `uri` is the name to ask for. */
export function createCsrFor({ privateKey, publicKey }: KeyPair, uri?: string): string {
  return toPem('CERTIFICATE REQUEST', signed(requestContent(publicKey, uri), privateKey));
}

/**
 * A request for a key that only signs, e.g. to have `certifyIntermediate` make an authority of it. Rejects with a `PkiError`:
 * `algorithm-unknown`, `signer-failed`.
 */
export async function createSignerCsr(signer: Signer): Promise<string> {
  const key = foreignKey(signer);
  return toPem('CERTIFICATE REQUEST', await signedBy(requestContent(key.publicKey), key));
}

/** `CertificationRequestInfo` (RFC 2986 section 4.1), without a subject. */
function requestContent(publicKey: KeyObject, uri?: string): Asn1 {
  const attributes = uri === undefined ? [] : [extensionRequest(uri)];
  return sequence(integer(0n), distinguishedName({}), publicKeyInfo(publicKey), tagged(0, ...attributes));
}

function extensionRequest(uri: string): Asn1 {
  return sequence(oid(oids.extensionRequest), set(sequence(subjectAltName([{ uri }], true))));
}

/**
 * Reads a request of unknown origin. Throws a `PkiError` with code `csr-malformed`, `key-weak`, or `csr-signature` if it is
 * not signed with the key it carries.
 */
export function parseCsr(csrPem: string): CertificateRequest {
  const { content, publicKey, requested, algorithm, signature } = readFields(csrPem);
  refuseWeakKey(publicKey);
  if (!verifies(algorithm, content, publicKey, signature)) {
    throw new PkiError('csr-signature', 'the request is not signed with SHA-2 by the key it carries');
  }
  return { publicKey, requested };
}

interface CsrFields {
  /** What the signature covers, as it came. */
  readonly content: Uint8Array;
  readonly publicKey: KeyObject;
  readonly requested: RequestedExtensions;
  readonly algorithm: string;
  readonly signature: Uint8Array;
}

/** `CertificationRequest` (RFC 2986 section 4.2). */
function readFields(csrPem: string): CsrFields {
  if (typeof csrPem !== 'string' || csrPem.length > MAX_CSR_CHARACTERS) {
    throw new PkiError('csr-malformed', `a request is PEM of at most ${MAX_CSR_CHARACTERS} characters`);
  }
  try {
    const request = new DerReader(readOnly(fromPem('CERTIFICATE REQUEST', csrPem), Tag.SEQUENCE).content);
    const content = request.read(Tag.SEQUENCE);
    const algorithm = algorithmOf(request.read(Tag.SEQUENCE));
    const signature = request.read(Tag.BIT_STRING);
    request.end();
    // Whole bytes: the number of unused bits is not signed, and must not be a second way to write the same request.
    if (signature.content[0] !== 0) throw new DerError('the signature has unused bits');
    return {
      content: content.bytes,
      ...readContent(content.content),
      algorithm,
      signature: bitStringOf(signature),
    };
  } catch (cause) {
    throw new PkiError('csr-malformed', 'the request is not a PKCS#10 request in PEM', { cause });
  }
}

/** Strict in all parts, used or not: what one parser passes over, another reads (and OpenSSL is one of those). */
function readContent(content: Uint8Array): { publicKey: KeyObject; requested: RequestedExtensions } {
  const fields = new DerReader(content);
  if (integerHexOf(fields.read(Tag.INTEGER)) !== '0') throw new DerError('the request is not of version 1');
  checkName(fields.read(Tag.SEQUENCE)); // subject
  const info = fields.read(Tag.SEQUENCE);
  const attributes = fields.read(contextTag(0, 'constructed'));
  fields.end();
  return {
    publicKey: readPublicKey(info.bytes),
    requested: attributes.content.length === 0 ? noRequest : readAttributes(attributes),
  };
}

/** Parameters are absent, or the NULL that RSA writes (RFC 4055 section 5, RFC 5758 section 3.2, RFC 8410 section 3). */
function algorithmOf({ content }: DerValue): string {
  const fields = new DerReader(content);
  const algorithm = oidOf(fields.read(Tag.OID));
  const scheme = SIGNATURE_SCHEMES.get(algorithm);
  if (scheme === undefined) return algorithm; // will not verify
  const parameters = scheme.kind === 'rsa' ? fields.optional(Tag.NULL) : undefined;
  if (parameters !== undefined && parameters.content.length > 0) throw new DerError('a NULL that holds something');
  fields.end();
  return algorithm;
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

function verifies(algorithm: string, content: Uint8Array, key: KeyObject, signature: Uint8Array): boolean {
  const scheme = SIGNATURE_SCHEMES.get(algorithm);
  if (scheme === undefined || scheme.kind !== key.asymmetricKeyType) return false;
  return verify(scheme.digest, content, key, signature);
}
