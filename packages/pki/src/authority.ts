import type { CertificateOptions, Instant } from './certificate.js';
import type { CrlOptions } from './crl.js';
import type { IssuedCertificate, IssuedIdentity } from './identity.js';
import type { KeyAlgorithm } from './keys.js';

export interface AuthorityOptions {
  /** `prod.acme` */
  readonly trustDomain: string;
  /** For people who read the certificate; at most 64 characters. Left out: "Sallyport root" or "Sallyport intermediate". */
  readonly commonName?: string;
  /** Left out: P-256. */
  readonly algorithm?: KeyAlgorithm;
  /** Left out: one year for a root, 30 days for an intermediate, which never outlives its parent. */
  readonly ttlMs?: number;
  /** The `ttlMs` count from here. Left out: now, backdated by 60 s for clocks that run late. */
  readonly notBefore?: Instant;
}

export interface IntermediateOptions extends Omit<AuthorityOptions, 'trustDomain'> {
  /** How many authorities may follow below it. Left out: 0. */
  readonly pathLength?: number;
}

export interface IssueOptions {
  /** `spiffe://prod.acme/svc/web`, of the authority's own trust domain. */
  readonly id: string;
  /** Lower-case DNS names without wildcards, for peers that verify names. Left out: none. */
  readonly dns?: readonly string[];
  /** IP addresses, likewise. Left out: none. */
  readonly ip?: readonly string[];
  /** Left out: one hour. A leaf never outlives its authority, whatever is asked for. */
  readonly ttlMs?: number;
  /** The `ttlMs` count from here. Left out: now, backdated by 60 s for clocks that run late. */
  readonly notBefore?: Instant;
  /** Left out: P-256. */
  readonly algorithm?: KeyAlgorithm;
}

/** Certificate options over the profile of a leaf; nothing is checked. */
export interface RawOverrides extends Partial<CertificateOptions> {
  /** The one URI of the leaf, and what the identity is called. Left out: no subject alternative name. */
  readonly id?: string;
  /** Left out: P-256. Without effect beside `subjectPublicKey`. */
  readonly algorithm?: KeyAlgorithm;
}

/** A certificate authority of one trust domain. Its key shows neither in JSON nor in `util.inspect`. */
export interface Authority {
  readonly trustDomain: string;
  /** Its own certificate, in PEM. */
  readonly certificatePem: string;
  /** The trust anchors of the domain, in PEM. */
  readonly bundlePem: string;
  /** End of its own validity, ms since the epoch. */
  readonly notAfter: number;
  /** An authority below this one. Throws a `PkiError` with code `path-length` if there may be none. */
  intermediate(options?: IntermediateOptions): Authority;
  /**
   * A certificate for an authority whose key is made elsewhere and stays there, such as the online authority that the offline
   * root of `createAuthorityService` stands above: its certificate, then the issuers up to the root, in PEM. The names of the
   * request are ignored. Throws a `PkiError`: as `intermediate` and `parseCsr`.
   */
  certifyIntermediate(csrPem: string, options?: Omit<IntermediateOptions, 'algorithm'>): string;
  /** A new key and a leaf for it. Throws a `PkiError`: `id-malformed`, `id-foreign`, `name-malformed`, `validity`. */
  issue(options: IssueOptions): IssuedIdentity;
  /** A leaf for the key of a request, whose names are ignored. Throws a `PkiError`: as `issue` and `parseCsr`. */
  issueForCsr(csrPem: string, options: Omit<IssueOptions, 'algorithm'>): IssuedCertificate;
  /** A leaf that is wrong in the way you say. For tests and unusual profiles: checks nothing. */
  issueRaw(overrides: RawOverrides): IssuedIdentity;
  /** A signed revocation list, in PEM. Throws a `PkiError` with code `serial-malformed`. */
  crl(options: CrlOptions): string;
  /**
   * Writes `<name>.pem` (mode 0644), `<name>.key` (0600) and `bundle.pem` (0644) for `openAuthority`. A missing folder is
   * made with mode 0700. `name` is `authority` unless given.
   */
  save(directory: string, options?: AuthorityFileOptions): Promise<void>;
}

export interface AuthorityFileOptions {
  /** Left out: `authority`. */
  readonly name?: string;
}
