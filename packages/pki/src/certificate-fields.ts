import { X509Certificate } from 'node:crypto';
import { type Asn1, decode, encode, integerOf, membersOf, octetsOf, taggedBytesOf, taggedOf } from './asn1.js';
import { findExtension } from './extensions.js';
import { oids } from './oids.js';
import { fromPem } from './pem.js';

/** What an authority must know of its own certificate. It is read to issue under it, never to decide whether to trust it. */
export interface CertificateFields {
  /** The name in DER, so that what is issued repeats it byte for byte. */
  readonly subject: Buffer;
  readonly subjectKeyIdentifier: Buffer | undefined;
  /** End of the validity, ms since the epoch. */
  readonly notAfter: number;
  /** URIs of the subject alternative name. */
  readonly uris: readonly string[];
  /** How many authorities may follow; `undefined` is no limit. */
  readonly pathLength: number | undefined;
}

/** Throws if the text is not one certificate in PEM. */
export function readCertificate(pem: string): CertificateFields {
  const [content] = membersOf(decode(fromPem('CERTIFICATE', pem)));
  const fields = membersOf(content);
  const subject = fields[5];
  if (subject === undefined) throw new Error('a certificate was expected');
  const extensions = membersOf(taggedOf(fields.at(-1), 3)[0]);

  const identifier = findExtension(extensions, oids.subjectKeyIdentifier);
  const altName = findExtension(extensions, oids.subjectAltName);
  const constraints = findExtension(extensions, oids.basicConstraints);
  const limit = constraints === undefined ? undefined : membersOf(constraints)[1];
  return {
    subject: encode(subject),
    subjectKeyIdentifier: identifier === undefined ? undefined : octetsOf(identifier),
    notAfter: Date.parse(new X509Certificate(pem).validTo),
    uris: altName === undefined ? [] : membersOf(altName).flatMap(uriOf),
    pathLength: limit === undefined ? undefined : Number(`0x${integerOf(limit).toString('hex')}`),
  };
}

function uriOf(name: Asn1): string[] {
  const bytes = taggedBytesOf(name, 6);
  return bytes === undefined ? [] : [bytes.toString('utf8')];
}
