import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import {
  type BuiltCertificate,
  backdateMs,
  buildCertificate,
  type CertificateOptions,
  type Instant,
} from './certificate.js';
import { readCertificate } from './certificate-fields.js';
import { buildCrl, type CrlOptions } from './crl.js';
import { parseCsr } from './csr.js';
import { PkiError } from './errors.js';
import type { KeyUsage } from './extensions.js';
import { ensureFolder, fileName, readPrivate, readPublic, writePrivate, writePublic } from './files.js';
import { type IssuedCertificate, type IssuedIdentity, issuedIdentity } from './identity.js';
import { generateKeys, type KeyAlgorithm, privateKeyPem } from './keys.js';
import { type GeneralName, parseDnsName, parseIpAddress } from './names.js';
import { splitCertificates } from './pem.js';
import { parseTrustDomain, parseWorkloadId } from './workload-id.js';

export interface AuthorityOptions {
  /** `prod.acme` */
  readonly trustDomain: string;
  /** For people who read the certificate. Left out: the trust domain and "root". */
  readonly commonName?: string;
  /** Left out: P-256. */
  readonly algorithm?: KeyAlgorithm;
  /** Left out: one year. */
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

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** SPIFFE X509-SVID section 4.2 and 4.3: an authority signs certificates and lists, and is nobody's leaf. */
const authorityUsage: readonly KeyUsage[] = ['keyCertSign', 'cRLSign'];

/** A self-signed root. Throws a `PkiError`: `trust-domain-malformed`, `algorithm-unknown`, `validity`. */
export function createAuthority(options: AuthorityOptions): Authority {
  const trustDomain = parseTrustDomain(options.trustDomain);
  const { privateKey, publicKey } = generateKeys(options.algorithm);
  const { pem } = buildCertificate({
    subject: { commonName: options.commonName ?? `${trustDomain} root`, organization: trustDomain },
    subjectPublicKey: publicKey,
    issuer: { key: privateKey },
    ...validity(options, 365 * dayMs, Number.POSITIVE_INFINITY),
    basicConstraints: { ca: true },
    keyUsage: { bits: authorityUsage },
    extendedKeyUsage: null,
    subjectAltName: { names: [{ uri: `spiffe://${trustDomain}` }] },
  });
  return new SigningAuthority({ certificatePem: pem, chainPem: '', bundlePem: pem, key: privateKey });
}

/**
 * The authority that `save` wrote, for example to use one in several processes. Throws a `PkiError`: `file-exposed` if
 * others may read the key or write any of the files, `file-malformed` if they do not make up an authority.
 */
export async function openAuthority(directory: string, { name = 'authority' }: AuthorityFileOptions = {}) {
  const stem = join(directory, fileName(name));
  const certificates = splitCertificates(await readPublic(`${stem}.pem`));
  const bundlePem = await readPublic(join(directory, 'bundle.pem'));
  const keyPem = await readPrivate(`${stem}.key`);
  const [certificatePem] = certificates;
  try {
    if (certificatePem === undefined) throw new Error('no certificate');
    const certificate = new X509Certificate(certificatePem);
    const key = createPrivateKey(keyPem);
    if (!certificate.ca || !certificate.checkPrivateKey(key)) throw new Error('not the key of an authority');
    const roots = splitCertificates(bundlePem);
    const chainPem = certificates.filter((pem) => !roots.includes(pem)).join('');
    const authority: Authority = new SigningAuthority({ certificatePem, chainPem, bundlePem, key });
    return authority;
  } catch (cause) {
    throw new PkiError('file-malformed', `${stem}.pem and ${stem}.key are not an authority and its key`, { cause });
  }
}

interface AuthorityParts {
  readonly certificatePem: string;
  /** What leaves need beside themselves: this certificate and those above it, without the root. */
  readonly chainPem: string;
  readonly bundlePem: string;
  readonly key: KeyObject;
}

class SigningAuthority implements Authority {
  readonly trustDomain: string;
  readonly certificatePem: string;
  readonly bundlePem: string;
  readonly notAfter: number;
  readonly #chainPem: string;
  readonly #pathLength: number;
  readonly #key: KeyObject;

  constructor({ certificatePem, chainPem, bundlePem, key }: AuthorityParts) {
    const { uris, pathLength = Number.POSITIVE_INFINITY } = readCertificate(certificatePem);
    this.trustDomain = parseTrustDomain(uris[0]?.replace('spiffe://', '') ?? '');
    this.certificatePem = certificatePem;
    this.bundlePem = bundlePem;
    this.notAfter = Date.parse(new X509Certificate(certificatePem).validTo);
    this.#chainPem = chainPem;
    this.#pathLength = pathLength;
    this.#key = key;
  }

  intermediate(options: IntermediateOptions = {}): Authority {
    const { algorithm, pathLength = 0, commonName = `${this.trustDomain} intermediate` } = options;
    if (pathLength >= this.#pathLength)
      throw new PkiError(
        'path-length',
        `the path length of this authority is ${this.#pathLength}; issue from its parent`,
      );
    const { privateKey, publicKey } = generateKeys(algorithm);
    const { pem } = buildCertificate({
      subject: { commonName, organization: this.trustDomain },
      subjectPublicKey: publicKey,
      issuer: this.#issuer,
      ...validity(options, 30 * dayMs, this.notAfter),
      basicConstraints: { ca: true, pathLength },
      keyUsage: { bits: authorityUsage },
      extendedKeyUsage: null,
      subjectAltName: { names: [{ uri: `spiffe://${this.trustDomain}` }] },
    });
    const chainPem = pem + this.#chainPem;
    return new SigningAuthority({ certificatePem: pem, chainPem, bundlePem: this.bundlePem, key: privateKey });
  }

  issue(options: IssueOptions): IssuedIdentity {
    const { privateKey, publicKey } = generateKeys(options.algorithm);
    return issuedIdentity({
      ...this.#issueFor(publicKey, options),
      id: options.id,
      privateKeyPem: privateKeyPem(privateKey),
      bundlePem: this.bundlePem,
    });
  }

  issueForCsr(csrPem: string, options: Omit<IssueOptions, 'algorithm'>): IssuedCertificate {
    return this.#issueFor(parseCsr(csrPem).publicKey, options);
  }

  issueRaw({ id = '', algorithm, ...overrides }: RawOverrides): IssuedIdentity {
    const { privateKey, publicKey } = generateKeys(algorithm);
    const certificate = buildCertificate({
      subjectPublicKey: publicKey,
      issuer: this.#issuer,
      notAfter: Date.now() + hourMs,
      ...(id === '' ? {} : { subjectAltName: { names: [{ uri: id }] } }),
      ...overrides,
    });
    return issuedIdentity({
      ...this.#withChain(certificate),
      id,
      privateKeyPem: privateKeyPem(privateKey),
      bundlePem: this.bundlePem,
    });
  }

  crl(options: CrlOptions): string {
    return buildCrl(options, { certificate: this.certificatePem, key: this.#key });
  }

  async save(directory: string, { name = 'authority' }: AuthorityFileOptions = {}): Promise<void> {
    const stem = join(directory, fileName(name));
    await ensureFolder(directory);
    await writePublic(join(directory, 'bundle.pem'), this.bundlePem);
    await writePrivate(`${stem}.key`, privateKeyPem(this.#key));
    await writePublic(`${stem}.pem`, this.#chainPem === '' ? this.certificatePem : this.#chainPem);
  }

  get #issuer() {
    return { key: this.#key, certificate: this.certificatePem };
  }

  #issueFor(publicKey: KeyObject, options: Omit<IssueOptions, 'algorithm'>): IssuedCertificate {
    const id = parseWorkloadId(options.id);
    if (id.trustDomain !== this.trustDomain)
      throw new PkiError('id-foreign', `${id} is not of the trust domain ${this.trustDomain}`);
    const names: GeneralName[] = [
      { uri: id.toString() },
      ...(options.dns ?? []).map(parseDnsName),
      ...(options.ip ?? []).map(parseIpAddress),
    ];
    return this.#withChain(
      buildCertificate({
        subjectPublicKey: publicKey,
        issuer: this.#issuer,
        ...validity(options, hourMs, this.notAfter),
        subjectAltName: { names },
      }),
    );
  }

  #withChain({ pem, serial, notAfter }: BuiltCertificate): IssuedCertificate {
    return { certificatePem: pem + this.#chainPem, serial, notAfter };
  }
}

/** The life of a certificate, cut to that of its issuer. */
function validity(
  { ttlMs, notBefore }: { readonly ttlMs?: number; readonly notBefore?: Instant },
  defaultTtlMs: number,
  latestMs: number,
): { readonly notBefore: number; readonly notAfter: number } {
  const now = Date.now();
  const begin = Number(notBefore ?? now - backdateMs);
  const end = Math.min(Number(notBefore ?? now) + (ttlMs ?? defaultTtlMs), latestMs);
  if (!(end - begin >= 1000))
    throw new PkiError('validity', 'the certificate would never be valid: mend ttlMs, or renew the authority');
  return { notBefore: begin, notAfter: end };
}
