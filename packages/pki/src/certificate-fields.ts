import { bytesOf, childrenOf, decode, encode, isTagged } from './asn1.js';
import { findExtension } from './extensions.js';
import { oids } from './oids.js';
import { fromPem } from './pem.js';

/** What an authority must know of its own certificate. It is read to issue under it, never to decide whether to trust it. */
export interface CertificateFields {
  /** The name in DER, so that what is issued repeats it byte for byte. */
  readonly subject: Buffer;
  readonly subjectKeyIdentifier: Buffer | undefined;
  /** URIs of the subject alternative name. */
  readonly uris: readonly string[];
  /** How many authorities may follow; `undefined` is no limit. */
  readonly pathLength: number | undefined;
}

export function readCertificate(pem: string): CertificateFields {
  const [content] = childrenOf(decode(fromPem('CERTIFICATE', pem)));
  const fields = childrenOf(content);
  const subject = fields[5];
  if (subject === undefined) throw new Error('not a certificate');
  const extensions = childrenOf(childrenOf(fields.find((field) => isTagged(field, 3)))[0]);

  const identifier = findExtension(extensions, oids.subjectKeyIdentifier);
  const altName = findExtension(extensions, oids.subjectAltName);
  const constraints = findExtension(extensions, oids.basicConstraints);
  const limit = constraints === undefined ? undefined : childrenOf(constraints)[1];
  return {
    subject: encode(subject),
    subjectKeyIdentifier: identifier === undefined ? undefined : bytesOf(identifier),
    uris: altName === undefined ? [] : uris(childrenOf(altName)),
    pathLength: limit === undefined ? undefined : Number(`0x${bytesOf(limit).toString('hex')}`),
  };
}

function uris(names: ReturnType<typeof childrenOf>): string[] {
  return names.filter((name) => isTagged(name, 6)).map((name) => bytesOf(name).toString('utf8'));
}
