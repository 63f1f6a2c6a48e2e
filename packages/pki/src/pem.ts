export type PemLabel = 'CERTIFICATE' | 'CERTIFICATE REQUEST' | 'X509 CRL';

/** RFC 7468, strict: 64 characters a line. */
export function toPem(label: PemLabel, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** The one block of a text that holds nothing else. Throws otherwise. */
export function fromPem(label: PemLabel, pem: string): Buffer {
  const block = new RegExp(`^\\s*-----BEGIN ${label}-----\\r?\\n([A-Za-z0-9+/=\\r\\n]+)-----END ${label}-----\\s*$`);
  const base64 = block.exec(pem)?.[1];
  if (base64 === undefined) throw new Error(`not one PEM block of a ${label.toLowerCase()}`);
  return Buffer.from(base64, 'base64');
}

/** Each certificate of a chain or a bundle, in order, as PEM of its own. */
export function splitCertificates(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => `${block}\n`);
}
