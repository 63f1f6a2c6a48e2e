import {
  type Clock,
  InsecureConfigurationError,
  MaterialHolder,
  type PemMaterial,
  parseMaterial,
  successionProblem,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { PkiError } from '../errors.js';

/** Whom to trust: what may change without a new certificate. */
export type PemTrust = Pick<PemMaterial, 'ca' | 'bundles' | 'crl'>;

export interface KeepOptions {
  readonly clock: Clock;
  /** How long revocation lists count after their time, ms. */
  readonly revocationGraceMs: number;
  /** Why a valid certificate must not be used, e.g. because its identity was not asked for. */
  readonly objection: (material: TlsMaterial) => string | undefined;
  /** Nobody uses the material any more. */
  readonly onLastClose: () => void;
}

/**
 * The last good material of a source: certificates and trust come in parts and at different times, and each takes over as one
 * valid whole with the rest, or not at all.
 */
export class KeptMaterial {
  readonly holder: MaterialHolder;
  readonly #options: KeepOptions;
  #pem: PemMaterial;

  /** Throws a `PkiError` with code `material-refused`. */
  constructor(first: PemMaterial, options: KeepOptions) {
    this.#options = options;
    this.#pem = first;
    this.holder = new MaterialHolder(this.#judged(first, 1), options.clock, options.onLastClose);
  }

  /**
   * A new certificate and key take over, and the trust that came with them unless a later one came meanwhile. Throws a
   * `PkiError` with code `material-refused`; the last good material stays.
   */
  renewed(pem: PemMaterial): void {
    const { ca, bundles, crl } = this.#pem;
    const material = this.#next(pem);
    if (this.#succession(material) === undefined) this.#adopt(pem, material);
    else this.#follow({ ...pem, ca, bundles, crl });
  }

  /**
   * New trust takes over for the current certificate; what is in place already changes nothing. Throws a `PkiError` with code
   * `material-refused` if it makes no valid whole with the certificate, or if its lists are older than those in place: who
   * replays an old list brings revoked peers back.
   */
  trusted({ ca, bundles, crl }: PemTrust): void {
    const pem = { ...this.#pem, ca, bundles, crl };
    if (JSON.stringify(pem) !== JSON.stringify(this.#pem)) this.#follow(pem);
  }

  #follow(pem: PemMaterial): void {
    const material = this.#next(pem);
    const problem = this.#succession(material);
    if (problem !== undefined) throw refused(problem);
    this.#adopt(pem, material);
  }

  #adopt(pem: PemMaterial, material: TlsMaterial): void {
    this.#pem = pem;
    this.holder.replace(material);
  }

  #succession(next: TlsMaterial): string | undefined {
    const { current } = this.holder;
    if (current.lists.length > 0 && next.lists.length === 0) return 'the revocation lists are gone';
    return successionProblem(next, current);
  }

  #next(pem: PemMaterial): TlsMaterial {
    return this.#judged(pem, this.holder.current.generation + 1);
  }

  #judged(pem: PemMaterial, generation: number): TlsMaterial {
    const { clock, revocationGraceMs, objection } = this.#options;
    const { material, violations } = parseMaterial(pem, { generation, now: clock.now(), revocationGraceMs });
    if (material === undefined) {
      const problems = violations.map(({ problem }) => problem).join('; ');
      throw refused(problems, new InsecureConfigurationError('the material of the authority', violations));
    }
    const problem = objection(material);
    if (problem !== undefined) throw refused(problem);
    return material;
  }
}

function refused(problem: string, cause?: InsecureConfigurationError): PkiError {
  return new PkiError('material-refused', problem, { cause });
}

/** Whether new trust was refused because the certificate in use is of an authority that it no longer holds. */
export function leavesIssuerOut(refusal: unknown): boolean {
  if (!(refusal instanceof PkiError && refusal.cause instanceof InsecureConfigurationError)) return false;
  return refusal.cause.violations.some(({ id }) => id === 'tls-certificate-untrusted');
}
