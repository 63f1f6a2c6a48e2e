import {
  asciiOf,
  bitStringOf,
  booleanOf,
  children,
  contextTag,
  DerError,
  DerReader,
  type DerValue,
  integerHexOf,
  oidOf,
  readOnly,
  Tag,
} from './der.js';

/** What the rules of X509-SVID need to know of a certificate, read from its DER. */
export interface CertificateProfile {
  /** Names in DER, as revocation lists and certificates are matched by them. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly subjectEmpty: boolean;
  /** basicConstraints.cA; false when the extension is absent. */
  readonly isAuthority: boolean;
  readonly hasPathLength: boolean;
  readonly keyUsage: KeyUsage | undefined;
  /** OIDs; undefined when the extension is absent. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly subjectAltName: SubjectAltName | undefined;
}

export interface KeyUsage {
  readonly critical: boolean;
  readonly digitalSignature: boolean;
  readonly keyCertSign: boolean;
  readonly crlSign: boolean;
}

export interface SubjectAltName {
  readonly critical: boolean;
  /** The names of type uniformResourceIdentifier, each as it stands in the certificate. */
  readonly uris: readonly string[];
}

const Oid = {
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  extendedKeyUsage: '2.5.29.37',
} as const;

const VERSION_3 = '02';
const URI = contextTag(6, 'primitive');
const CONSTRUCTED_URI = contextTag(6, 'constructed');

/**
 * Reads the profile of an X.509 certificate (RFC 5280 §4.1). Throws DerError when the bytes are not one certificate of
 * version 3 in DER, or when an extension occurs twice.
 */
export function readProfile(raw: Uint8Array): CertificateProfile {
  const { issuer, subject, extensions } = readTbs(raw);
  const basic = basicConstraints(extensions.get(Oid.basicConstraints));
  return {
    issuer: issuer.bytes,
    subject: subject.bytes,
    subjectEmpty: subject.content.length === 0,
    isAuthority: basic.isAuthority,
    hasPathLength: basic.hasPathLength,
    keyUsage: keyUsage(extensions.get(Oid.keyUsage)),
    extendedKeyUsage: extendedKeyUsage(extensions.get(Oid.extendedKeyUsage)),
    subjectAltName: subjectAltName(extensions.get(Oid.subjectAltName)),
  };
}

export interface Extension {
  readonly critical: boolean;
  readonly value: Uint8Array;
}

interface Tbs {
  readonly issuer: DerValue;
  readonly subject: DerValue;
  readonly extensions: ReadonlyMap<string, Extension>;
}

function readTbs(raw: Uint8Array): Tbs {
  const certificate = new DerReader(readOnly(raw, Tag.SEQUENCE).content);
  const tbs = new DerReader(certificate.read(Tag.SEQUENCE).content);
  certificate.read(Tag.SEQUENCE); // signatureAlgorithm
  certificate.read(Tag.BIT_STRING); // signature
  certificate.end();

  const version = readOnly(tbs.read(contextTag(0, 'constructed')).content, Tag.INTEGER);
  if (integerHexOf(version) !== VERSION_3) throw new DerError('the certificate is not of version 3');
  integerHexOf(tbs.read(Tag.INTEGER)); // serialNumber: refused when negative
  tbs.read(Tag.SEQUENCE); // signature
  const issuer = tbs.read(Tag.SEQUENCE);
  tbs.read(Tag.SEQUENCE); // validity
  const subject = tbs.read(Tag.SEQUENCE);
  tbs.read(Tag.SEQUENCE); // subjectPublicKeyInfo
  tbs.optional(contextTag(1, 'primitive')); // issuerUniqueID
  tbs.optional(contextTag(2, 'primitive')); // subjectUniqueID
  const field = tbs.optional(contextTag(3, 'constructed'));
  tbs.end();
  return { issuer, subject, extensions: field === undefined ? new Map() : readExtensions(field.content) };
}

/** Extensions ::= SEQUENCE OF { OID, critical BOOLEAN DEFAULT FALSE, OCTET STRING }, each kind at most once (RFC 5280 §4.2). */
export function readExtensions(der: Uint8Array): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>();
  for (const entry of children(readOnly(der, Tag.SEQUENCE))) {
    if (entry.tag !== Tag.SEQUENCE) throw new DerError('an extension is not a SEQUENCE');
    const fields = new DerReader(entry.content);
    const oid = oidOf(fields.read(Tag.OID));
    // An explicit FALSE is not DER, but many encoders write it and it can mean only one thing.
    const critical = fields.optional(Tag.BOOLEAN);
    const value = fields.read(Tag.OCTET_STRING).content;
    fields.end();
    if (extensions.has(oid)) throw new DerError(`the extension ${oid} occurs twice`);
    extensions.set(oid, { critical: critical !== undefined && booleanOf(critical), value });
  }
  return extensions;
}

interface BasicConstraints {
  readonly isAuthority: boolean;
  readonly hasPathLength: boolean;
}

function basicConstraints(extension: Extension | undefined): BasicConstraints {
  if (extension === undefined) return { isAuthority: false, hasPathLength: false };
  const fields = new DerReader(readOnly(extension.value, Tag.SEQUENCE).content);
  const isAuthority = fields.optional(Tag.BOOLEAN);
  const pathLength = fields.optional(Tag.INTEGER);
  fields.end();
  return {
    isAuthority: isAuthority !== undefined && booleanOf(isAuthority),
    hasPathLength: pathLength !== undefined,
  };
}

function keyUsage(extension: Extension | undefined): KeyUsage | undefined {
  if (extension === undefined) return undefined;
  // Bit 0 is the highest of the first octet (RFC 5280 §4.2.1.3).
  const [bits = 0] = bitStringOf(readOnly(extension.value, Tag.BIT_STRING));
  return {
    critical: extension.critical,
    digitalSignature: (bits & 0x80) !== 0,
    keyCertSign: (bits & 0x04) !== 0,
    crlSign: (bits & 0x02) !== 0,
  };
}

function extendedKeyUsage(extension: Extension | undefined): readonly string[] | undefined {
  if (extension === undefined) return undefined;
  const purposes: string[] = [];
  for (const purpose of children(readOnly(extension.value, Tag.SEQUENCE))) {
    if (purpose.tag !== Tag.OID) throw new DerError('an extended key usage is not an OID');
    purposes.push(oidOf(purpose));
  }
  return purposes;
}

function subjectAltName(extension: Extension | undefined): SubjectAltName | undefined {
  if (extension === undefined) return undefined;
  const uris: string[] = [];
  for (const name of children(readOnly(extension.value, Tag.SEQUENCE))) {
    // BER, which OpenSSL reads, lets a string be constructed of parts: a URI that this reader would pass over.
    if (name.tag === CONSTRUCTED_URI) throw new DerError('a URI is in constructed form');
    if (name.tag === URI) uris.push(asciiOf(name));
  }
  return { critical: extension.critical, uris };
}
