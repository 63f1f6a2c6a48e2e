import { join } from 'node:path';
import { ensureFolder, fileName, writePrivate, writePublic } from './files.js';

export interface IssuedCertificate {
  /** The leaf and the intermediates up to the root, which is left out, in PEM. */
  readonly certificatePem: string;
  /** Upper-case hexadecimal, as `X509Certificate.serialNumber`. */
  readonly serial: string;
  /** End of the validity, ms since the epoch. */
  readonly notAfter: number;
}

/** A leaf with its key. */
export interface IssuedIdentity extends IssuedCertificate {
  /** `spiffe://prod.acme/svc/web` */
  readonly id: string;
  /** PKCS#8. Not enumerable: it shows neither in JSON nor in `util.inspect`, and a spread does not copy it. */
  readonly privateKeyPem: string;
  /**
   * Writes `<name>.pem` (mode 0644), `<name>.key` (0600) and `bundle.pem` (0644, the roots), each atomically. A missing
   * folder is made with mode 0700. `name` is the last segment of the id unless given. Throws a `PkiError` with code
   * `file-name` if that cannot name a file.
   */
  write(directory: string, options?: { readonly name?: string }): Promise<IdentityFiles>;
}

/** Paths, as `tls.fromFiles` takes them. */
export interface IdentityFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export interface IdentityParts extends IssuedCertificate {
  readonly id: string;
  readonly privateKeyPem: string;
  readonly bundlePem: string;
}

export function issuedIdentity(parts: IdentityParts): IssuedIdentity {
  return new FreshIdentity(parts);
}

class FreshIdentity implements IssuedIdentity {
  readonly id: string;
  readonly certificatePem: string;
  readonly serial: string;
  readonly notAfter: number;
  readonly #privateKeyPem: string;
  readonly #bundlePem: string;

  constructor(parts: IdentityParts) {
    this.id = parts.id;
    this.certificatePem = parts.certificatePem;
    this.serial = parts.serial;
    this.notAfter = parts.notAfter;
    this.#privateKeyPem = parts.privateKeyPem;
    this.#bundlePem = parts.bundlePem;
  }

  get privateKeyPem(): string {
    return this.#privateKeyPem;
  }

  async write(directory: string, { name }: { readonly name?: string } = {}): Promise<IdentityFiles> {
    const stem = fileName(name ?? this.id.slice(this.id.lastIndexOf('/') + 1));
    const files = {
      cert: join(directory, `${stem}.pem`),
      key: join(directory, `${stem}.key`),
      ca: join(directory, 'bundle.pem'),
    };
    await ensureFolder(directory);
    await writePublic(files.ca, this.#bundlePem);
    await writePrivate(files.key, this.#privateKeyPem);
    await writePublic(files.cert, this.certificatePem);
    return files;
  }
}
