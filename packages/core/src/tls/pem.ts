import { X509Certificate } from 'node:crypto';

export interface PemBlock {
  /** `CERTIFICATE`, `PRIVATE KEY`, `X509 CRL` … */
  readonly label: string;
  /** With its begin and end lines. */
  readonly pem: string;
}

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n[A-Za-z0-9+/=\r\n]+-----END \1-----/g;

/** The blocks of a PEM text in their order (RFC 7468). Text between them is commentary. */
export function pemBlocks(text: string): PemBlock[] {
  return [...text.matchAll(BLOCK)].map(([pem, label = '']) => ({ label, pem }));
}

/** The DER of a block. */
export function derOf({ pem }: PemBlock): Uint8Array {
  return Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64');
}

/**
 * The certificates of a PEM text. Throws TypeError when there is anything else in it: a private key in a file that is not
 * guarded like one, a `TRUSTED CERTIFICATE` whose trust settings would be dropped.
 */
export function parseCertificates(text: string): X509Certificate[] {
  return pemBlocks(text).map(({ label, pem }, index) => {
    if (label !== 'CERTIFICATE') throw new TypeError(`it holds a ${label}; only certificates belong here`);
    try {
      const certificate = new X509Certificate(pem);
      void certificate.publicKey; // read on demand only, and it throws for a key that OpenSSL cannot read
      return certificate;
    } catch {
      throw new TypeError(`its certificate number ${index + 1} is damaged, or its key is of an unknown kind`);
    }
  });
}

/** One PEM text of certificates, in their order. */
export function pemOf(certificates: readonly X509Certificate[]): string {
  return certificates.map((certificate) => certificate.toString()).join('');
}
