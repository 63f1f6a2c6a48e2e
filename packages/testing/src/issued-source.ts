import {
  InsecureConfigurationError,
  MaterialHolder,
  parseMaterial,
  type TlsContext,
  type TlsHandle,
  type TlsMaterial,
  type TlsSource,
  type Violation,
} from '@sallyport/core/spi';
import type { IssuedIdentity } from '@sallyport/pki';

/** What an identity is issued with, all PEM. */
export interface IssuedMaterial {
  readonly identity: Pick<IssuedIdentity, 'certificatePem' | 'privateKeyPem'>;
  /** Trust anchors of the own domain. */
  readonly bundlePem: string;
  /** Trust anchors of other domains. */
  readonly bundles?: Readonly<Record<string, string>>;
  /** Revocation lists: one for each issuer in the chain, the root included. */
  readonly crlPems?: readonly string[];
  /** How long the lists count after their time, ms. Left out: 0. */
  readonly revocationGraceMs?: number;
}

/** A TLS source in memory, for tests: holds what it is given, and swaps it when it is told to. */
export class IssuedSource implements TlsSource {
  readonly kind = 'issued';
  #issued: IssuedMaterial;
  #generation = 1;
  #holder: MaterialHolder | undefined;

  constructor(issued: IssuedMaterial) {
    this.#issued = issued;
  }

  async check(): Promise<readonly Violation[]> {
    return this.#parse(this.#issued, Date.now()).violations;
  }

  async open(context: TlsContext): Promise<TlsHandle> {
    this.#holder ??= new MaterialHolder(this.#material(this.#issued, context.clock.now()), context.clock, () => {
      this.#holder = undefined;
    });
    return this.#holder.open(context);
  }

  /** Puts new material in place of the current one. Throws InsecureConfigurationError when it is not valid. */
  rotate(issued: IssuedMaterial): void {
    this.#generation++;
    this.#holder?.replace(this.#material(issued, Date.now()));
    this.#issued = issued;
  }

  /** As an issuer that takes the identity back: nothing may use it until the next `rotate`. */
  withdraw(detail: string): void {
    this.#holder?.withdraw(detail);
  }

  #material(issued: IssuedMaterial, now: number): TlsMaterial {
    const { material, violations } = this.#parse(issued, now);
    if (!material) throw new InsecureConfigurationError('issued material', violations);
    return material;
  }

  #parse({ identity, bundlePem, bundles, crlPems, revocationGraceMs = 0 }: IssuedMaterial, now: number) {
    return parseMaterial(
      {
        cert: identity.certificatePem,
        key: identity.privateKeyPem,
        ca: bundlePem,
        bundles: bundles ?? {},
        crl: crlPems ?? [],
      },
      { generation: this.#generation, now, revocationGraceMs },
    );
  }
}
