export type PemLabel = 'CERTIFICATE' | 'CERTIFICATE REQUEST' | 'X509 CRL';

/** RFC 7468, strict: 64 characters a line. */
export function toPem(label: PemLabel, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** The one block of a text that holds nothing else, in lines of at most 76 characters. Throws otherwise. */
export function fromPem(label: PemLabel, pem: string): Buffer {
  const block = new RegExp(
    `^(?:\\r?\\n)*-----BEGIN ${label}-----\\r?\\n((?:[A-Za-z0-9+/=]{1,76}\\r?\\n)+)-----END ${label}-----$`,
  );
  const base64 = block.exec(pem.trimEnd())?.[1]?.replaceAll(/[\r\n]/g, '');
  const der = Buffer.from(base64 ?? '', 'base64');
  // Node skips what is no base64 in silence; then this is not what others read.
  if (base64 === undefined || der.toString('base64') !== base64) {
    throw new Error(`not one PEM block of a ${label.toLowerCase()}`);
  }
  return der;
}

/** Each certificate of a chain or a bundle, in order, as PEM of its own. */
export function splitCertificates(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => `${block}\n`);
}
