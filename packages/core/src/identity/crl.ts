import { type KeyObject, verify } from 'node:crypto';
import { type Extension, readExtensions } from './certificate-profile.js';
import {
  bitStringOf,
  children,
  contextTag,
  DerError,
  DerReader,
  type DerValue,
  integerHexOf,
  oidOf,
  optionalTime,
  readOnly,
  Tag,
} from './der.js';

/** A certificate revocation list, parsed but not verified. */
export interface Crl {
  /** The issuer's name in DER, to be compared with the subject of the CA certificate. */
  readonly issuerDer: Uint8Array;
  /** Ms since the epoch. */
  readonly thisUpdate: number;
  /** Ms since the epoch; after it the list says nothing any more. */
  readonly nextUpdate: number;
  /** The CRL number in upper-case hexadecimal, if there is one. */
  readonly number: string | undefined;
  /** As `X509Certificate.serialNumber` prints them. */
  readonly revokedSerials: readonly string[];
  /** The bytes that the signature covers. */
  readonly tbs: Uint8Array;
  readonly signature: Uint8Array;
  /** OID */
  readonly signatureAlgorithm: string;
}

const CRL_NUMBER = '2.5.29.20';
const VERSION_2 = '01';

interface Algorithm {
  readonly keyType: string;
  readonly digest: string | null;
}

const algorithms: ReadonlyMap<string, Algorithm> = new Map([
  ['1.2.840.10045.4.3.2', { keyType: 'ec', digest: 'sha256' }],
  ['1.2.840.10045.4.3.3', { keyType: 'ec', digest: 'sha384' }],
  ['1.2.840.10045.4.3.4', { keyType: 'ec', digest: 'sha512' }],
  ['1.2.840.113549.1.1.11', { keyType: 'rsa', digest: 'sha256' }],
  ['1.2.840.113549.1.1.12', { keyType: 'rsa', digest: 'sha384' }],
  ['1.2.840.113549.1.1.13', { keyType: 'rsa', digest: 'sha512' }],
  ['1.3.101.112', { keyType: 'ed25519', digest: null }],
]);

/**
 * Parses a complete CRL of version 2 (RFC 5280 §5.1). Throws DerError for anything else: a list without `nextUpdate`,
 * which would be valid for ever, and a list with a critical extension, because that makes it a delta, partial or
 * indirect list, whose entries mean something else (§5.2).
 */
export function parseCrl(der: Uint8Array): Crl {
  const list = new DerReader(readOnly(der, Tag.SEQUENCE).content);
  const tbs = list.read(Tag.SEQUENCE);
  const algorithm = list.read(Tag.SEQUENCE);
  const signature = bitStringOf(list.read(Tag.BIT_STRING));
  list.end();

  const fields = new DerReader(tbs.content);
  if (integerHexOf(fields.read(Tag.INTEGER)) !== VERSION_2) throw new DerError('the list is not of version 2');
  // §5.1.1.2: the same inside, where the signature covers it.
  if (Buffer.compare(fields.read(Tag.SEQUENCE).bytes, algorithm.bytes) !== 0) {
    throw new DerError('the list names two signature algorithms');
  }
  const issuer = fields.read(Tag.SEQUENCE);
  const thisUpdate = requiredTime(fields, 'thisUpdate');
  const nextUpdate = requiredTime(fields, 'nextUpdate');
  const revoked = fields.optional(Tag.SEQUENCE);
  const extensions = fields.optional(contextTag(0, 'constructed'));
  fields.end();
  return {
    issuerDer: issuer.bytes,
    thisUpdate,
    nextUpdate,
    number: crlNumber(extensions && understoodExtensions(extensions.content)),
    revokedSerials: revoked === undefined ? [] : revokedSerials(revoked),
    tbs: tbs.bytes,
    signature,
    signatureAlgorithm: algorithmOid(algorithm),
  };
}

/** Whether the holder of `issuerPublicKey` signed the list. Algorithms: ECDSA and RSA with SHA-2, Ed25519. Never throws. */
export function verifyCrl(crl: Crl, issuerPublicKey: KeyObject): boolean {
  const algorithm = algorithms.get(crl.signatureAlgorithm);
  if (algorithm === undefined || issuerPublicKey.asymmetricKeyType !== algorithm.keyType) return false;
  try {
    return verify(algorithm.digest, crl.tbs, issuerPublicKey, crl.signature);
  } catch {
    return false;
  }
}

function requiredTime(fields: DerReader, name: string): number {
  const time = optionalTime(fields);
  if (time === undefined) throw new DerError(`the list has no ${name}`);
  return time;
}

function revokedSerials(revoked: DerValue): string[] {
  const serials: string[] = [];
  for (const entry of children(revoked)) {
    if (entry.tag !== Tag.SEQUENCE) throw new DerError('a revoked certificate is not a SEQUENCE');
    const fields = new DerReader(entry.content);
    serials.push(integerHexOf(fields.read(Tag.INTEGER)));
    requiredTime(fields, 'revocation date');
    const extensions = fields.optional(Tag.SEQUENCE);
    if (extensions !== undefined) understoodExtensions(extensions.bytes);
    fields.end();
  }
  return serials;
}

function understoodExtensions(der: Uint8Array): ReadonlyMap<string, Extension> {
  const extensions = readExtensions(der);
  for (const [oid, { critical }] of extensions) {
    if (critical)
      throw new DerError(`the list has the critical extension ${oid}: only complete, direct lists are used`);
  }
  return extensions;
}

function crlNumber(extensions: ReadonlyMap<string, Extension> | undefined): string | undefined {
  const number = extensions?.get(CRL_NUMBER);
  return number === undefined ? undefined : integerHexOf(readOnly(number.value, Tag.INTEGER));
}

function algorithmOid(algorithm: DerValue): string {
  const fields = new DerReader(algorithm.content);
  const oid = oidOf(fields.read(Tag.OID));
  fields.optional(Tag.NULL); // RSA writes its absent parameters out
  fields.end();
  return oid;
}
