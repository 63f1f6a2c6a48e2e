import {
  type Clock,
  InsecureConfigurationError,
  MaterialHolder,
  type PemMaterial,
  parseMaterial,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { PkiError } from '../errors.js';
import { listRollback } from './list-rollback.js';

/** Whom to trust: what may change without a new certificate. */
export type PemTrust = Pick<PemMaterial, 'ca' | 'bundles' | 'crl'>;

export interface KeepOptions {
  readonly clock: Clock;
  /** Why a valid certificate must not be used, e.g. because its identity was not asked for. */
  readonly objection?: ((material: TlsMaterial) => string | undefined) | undefined;
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
    this.holder = new MaterialHolder(this.#judged(first), options.clock, options.onLastClose);
  }

  /**
   * A new certificate and key take over, and the trust that came with them unless a later one came meanwhile. Throws a
   * `PkiError` with code `material-refused`; the last good material stays.
   */
  renewed(pem: PemMaterial): void {
    const overtaken = listRollback(this.#pem, pem) !== undefined;
    const { ca, bundles, crl } = overtaken ? this.#pem : pem;
    this.#adopt({ ...pem, ca, bundles, crl });
  }

  /**
   * New trust takes over for the current certificate; what is in place already changes nothing. Throws a `PkiError` with code
   * `material-refused` if it makes no valid whole with the certificate, or if its lists are older than those in place: who
   * replays an old list brings revoked peers back.
   */
  trusted({ ca, bundles, crl }: PemTrust): void {
    const next = { ...this.#pem, ca, bundles, crl };
    if (JSON.stringify(next) === JSON.stringify(this.#pem)) return;
    const rollback = listRollback(this.#pem, next);
    if (rollback !== undefined) throw refused(rollback);
    this.#adopt(next);
  }

  #adopt(pem: PemMaterial): void {
    const material = this.#judged(pem, this.holder.current);
    this.#pem = pem;
    this.holder.replace(material);
  }

  #judged(pem: PemMaterial, current?: TlsMaterial): TlsMaterial {
    const generation = (current?.generation ?? 0) + 1;
    const { material, violations } = parseMaterial(pem, { generation, now: this.#options.clock.now() });
    if (material === undefined) {
      const problems = violations.map(({ problem }) => problem).join('; ');
      throw refused(problems, new InsecureConfigurationError('the material of the authority', violations));
    }
    const objection = this.#options.objection?.(material) ?? identityProblem(material, current);
    if (objection !== undefined) throw refused(objection);
    return material;
  }
}

/** A service is one identity for as long as it lives: its registration and the rules of its peers name it. */
function identityProblem({ identity }: TlsMaterial, current: TlsMaterial | undefined): string | undefined {
  if (current === undefined || current.identity.equals(identity)) return undefined;
  return `the new certificate belongs to ${identity}, this is ${current.identity}`;
}

function refused(problem: string, cause?: InsecureConfigurationError): PkiError {
  return new PkiError('material-refused', problem, { cause });
}

/** Whether new trust was refused because the certificate in use is of an authority that it no longer holds. */
export function leavesIssuerOut(refusal: unknown): boolean {
  if (!(refusal instanceof PkiError && refusal.cause instanceof InsecureConfigurationError)) return false;
  return refusal.cause.violations.some(({ id }) => id === 'tls-certificate-untrusted');
}
