import { X509Certificate } from 'node:crypto';
import {
  children,
  contextTag,
  type DerValue,
  integerHexOf,
  oidOf,
  readOnly,
  readProfile,
  Tag,
} from '@sallyport/core/spi';
import { oids } from './oids.js';

/** What is needed to issue under a certificate. It is never read to decide whether to trust it. */
export interface CertificateFields {
  /** The name in DER, so that what is issued repeats it byte for byte. */
  readonly subject: Uint8Array;
  readonly subjectKeyIdentifier: Uint8Array | undefined;
  /** End of the validity, ms since the epoch. */
  readonly notAfter: number;
  /** How many authorities may follow; `undefined` is no limit. */
  readonly pathLength: number | undefined;
}

/** Of the first certificate of a PEM text. Throws if there is none. */
export function readCertificate(pem: string): CertificateFields {
  const { raw, validTo } = new X509Certificate(pem);
  const extensions = extensionsOf(raw);
  const identifier = extensions.get(oids.subjectKeyIdentifier);
  return {
    subject: readProfile(raw).subject,
    subjectKeyIdentifier: identifier && readOnly(identifier, Tag.OCTET_STRING).content,
    notAfter: Date.parse(validTo),
    pathLength: pathLength(extensions.get(oids.basicConstraints)),
  };
}

function pathLength(basicConstraints: Uint8Array | undefined): number | undefined {
  if (basicConstraints === undefined) return undefined;
  const limit = [...children(readOnly(basicConstraints, Tag.SEQUENCE))].find(({ tag }) => tag === Tag.INTEGER);
  return limit && Number.parseInt(integerHexOf(limit), 16);
}

/** Their values by their OIDs. */
function extensionsOf(raw: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const [content] = children(readOnly(raw, Tag.SEQUENCE));
  const field = content && [...children(content)].find(({ tag }) => tag === contextTag(3, 'constructed'));
  return new Map(field && Array.from(children(readOnly(field.content, Tag.SEQUENCE)), idAndValue));
}

function idAndValue(extension: DerValue): [string, Uint8Array] {
  const [id, ...rest] = children(extension); // between them may stand whether it is critical
  const value = rest.at(-1);
  if (id === undefined || value === undefined) throw new TypeError('an extension without a value');
  return [oidOf(id), value.content];
}
