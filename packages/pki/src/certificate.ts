import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { type Asn1, encoded, integer, sequence, tagged, time } from './asn1.js';
import { type CertificateFields, readCertificate } from './certificate-fields.js';
import {
  authorityKeyIdentifier,
  type BasicConstraints,
  basicConstraints,
  type ExtendedKeyUsage,
  encodedExtension,
  extendedKeyUsage,
  type KeyUsage,
  keyUsage,
  type NameConstraints,
  nameConstraints,
  subjectAltName,
  subjectKeyIdentifier,
} from './extensions.js';
import { keyIdentifier, publicKeyInfo, signatureAlgorithm, signed } from './keys.js';
import { type DistinguishedName, distinguishedName, type GeneralName } from './names.js';
import { toPem } from './pem.js';
import { newSerial, serialBytes } from './serial.js';

/** A point in time: a `Date`, or milliseconds since the epoch. Certificates hold whole seconds. */
export type Instant = Date | number;

export interface CertificateIssuer {
  /** Signs the certificate: a private key of P-256, P-384 or Ed25519, as an object or in PEM. */
  readonly key: KeyObject | string;
  /** PEM. Gives the issuer's name and the authority key identifier. Left out: the certificate signs itself. */
  readonly certificate?: string;
  /** Left out: the subject of `certificate`, or else the subject of the new certificate. */
  readonly name?: DistinguishedName;
}

export interface CertificateOptions {
  /** Left out: the empty name. */
  readonly subject?: DistinguishedName;
  readonly subjectPublicKey: KeyObject;
  readonly issuer: CertificateIssuer;
  /** Hexadecimal. Left out: 16 random bytes. */
  readonly serial?: string;
  /** Left out: 60 s ago, for clocks that run late. */
  readonly notBefore?: Instant;
  readonly notAfter: Instant;
  /** Left out: `{ ca: false }`; `null`: no such extension. Always critical. */
  readonly basicConstraints?: BasicConstraints | null;
  /** Left out: `digitalSignature`; `null`: no such extension. Critical unless told otherwise. */
  readonly keyUsage?: { readonly bits: readonly KeyUsage[]; readonly critical?: boolean } | null;
  /** Left out: `serverAuth` and `clientAuth`; `null`: no such extension. */
  readonly extendedKeyUsage?: readonly ExtendedKeyUsage[] | null;
  /** Left out: no such extension. Critical, unless told otherwise, if the subject is empty (RFC 5280 section 4.2.1.6). */
  readonly subjectAltName?: { readonly names: readonly GeneralName[]; readonly critical?: boolean };
  /** Left out: no such extension. Always critical. */
  readonly nameConstraints?: NameConstraints;
  /** Further extensions; `value` is DER. */
  readonly extra?: readonly ExtraExtension[];
}

export interface ExtraExtension {
  readonly oid: string;
  readonly critical?: boolean;
  readonly value: Uint8Array;
}

export interface BuiltCertificate {
  readonly pem: string;
  /** Upper-case hexadecimal. */
  readonly serial: string;
  /** End of the validity, ms since the epoch. */
  readonly notAfter: number;
}

export const BACKDATE_MS = 60_000;

/**
 * Makes and signs an X.509 v3 certificate (RFC 5280 section 4) exactly as told. For tests and unusual profiles: it checks
 * nothing, so it can make certificates that no peer should accept. `Authority.issue` makes the others.
 */
export function buildCertificate(options: CertificateOptions): BuiltCertificate {
  const { issuer } = options;
  const key = typeof issuer.key === 'string' ? createPrivateKey(issuer.key) : issuer.key;
  const { content, serial, notAfter } = draftCertificate(options, {
    publicKey: createPublicKey(key),
    name: issuer.name,
    fields: issuer.certificate === undefined ? undefined : readCertificate(issuer.certificate),
  });
  return { pem: toPem('CERTIFICATE', signed(content, key)), serial, notAfter };
}

/** As `CertificateIssuer`, read once for many certificates. */
export interface DraftIssuer {
  readonly publicKey: KeyObject;
  readonly name?: DistinguishedName | undefined;
  readonly fields: CertificateFields | undefined;
}

export interface CertificateDraft extends Omit<BuiltCertificate, 'pem'> {
  /** What is to be signed. */
  readonly content: Asn1;
}

/** A certificate before it is signed. */
export function draftCertificate(options: Omit<CertificateOptions, 'issuer'>, issuer: DraftIssuer): CertificateDraft {
  const { subject = {}, serial = newSerial(), notBefore = Date.now() - BACKDATE_MS } = options;
  const notAfter = Math.floor(Number(options.notAfter) / 1000) * 1000;
  const content = sequence(
    tagged(0, integer(2n)),
    integer(serialBytes(serial)),
    signatureAlgorithm(issuer.publicKey),
    issuerName(issuer, subject),
    sequence(time(Number(notBefore)), time(notAfter)),
    distinguishedName(subject),
    publicKeyInfo(options.subjectPublicKey),
    tagged(3, sequence(...extensionsOf(options, issuer))),
  );
  return { content, serial: serial.toUpperCase(), notAfter };
}

function issuerName({ name, fields }: DraftIssuer, subject: DistinguishedName): Asn1 {
  if (name !== undefined) return distinguishedName(name);
  return fields === undefined ? distinguishedName(subject) : encoded(fields.subject);
}

function extensionsOf(options: Omit<CertificateOptions, 'issuer'>, issuer: DraftIssuer): Asn1[] {
  const { subjectPublicKey, subjectAltName: altName, nameConstraints: constraints, extra = [] } = options;
  const constraint = options.basicConstraints === undefined ? { ca: false } : options.basicConstraints;
  const usage = options.keyUsage === undefined ? { bits: ['digitalSignature' as const] } : options.keyUsage;
  const purposes =
    options.extendedKeyUsage === undefined ? (['serverAuth', 'clientAuth'] as const) : options.extendedKeyUsage;

  const extensions: Asn1[] = [];
  if (constraint !== null) extensions.push(basicConstraints(constraint));
  if (usage !== null) extensions.push(keyUsage(usage.bits, usage.critical ?? true));
  if (purposes !== null) extensions.push(extendedKeyUsage(purposes));
  extensions.push(subjectKeyIdentifier(keyIdentifier(subjectPublicKey)));
  if (issuer.fields !== undefined || issuer.name !== undefined)
    extensions.push(authorityKeyIdentifier(issuerKeyIdentifier(issuer)));
  if (altName !== undefined) {
    const emptySubject = Object.keys(options.subject ?? {}).length === 0;
    extensions.push(subjectAltName(altName.names, altName.critical ?? emptySubject));
  }
  if (constraints !== undefined) extensions.push(nameConstraints(constraints));
  for (const { oid, critical = false, value } of extra) extensions.push(encodedExtension(oid, critical, value));
  return extensions;
}

/** That of the issuer's certificate, because an authority that others made may identify its key in another way. */
function issuerKeyIdentifier({ fields, publicKey }: DraftIssuer): Uint8Array {
  return fields?.subjectKeyIdentifier ?? keyIdentifier(publicKey);
}
