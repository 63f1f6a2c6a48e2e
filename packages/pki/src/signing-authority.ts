import { createPublicKey, type KeyObject } from 'node:crypto';
import type {
  Authority,
  AuthorityFileOptions,
  AuthorityOptions,
  IntermediateOptions,
  IssueOptions,
  RawOverrides,
} from './authority.js';
import { type AuthorityParts, readAuthority, writeAuthority } from './authority-files.js';
import {
  BACKDATE_MS,
  type BuiltCertificate,
  buildCertificate,
  type DraftIssuer,
  draftCertificate,
  type Instant,
} from './certificate.js';
import { readCertificate } from './certificate-fields.js';
import { buildCrl, type CrlOptions } from './crl.js';
import { parseCsr } from './csr.js';
import { PkiError } from './errors.js';
import type { KeyUsage } from './extensions.js';
import { type IssuedCertificate, type IssuedIdentity, issuedIdentity } from './identity.js';
import { generateKeys, privateKeyPem, signed } from './keys.js';
import { type DistinguishedName, type GeneralName, parseDnsName, parseIpAddress } from './names.js';
import { toPem } from './pem.js';
import { parseTrustDomain, parseWorkloadId } from './workload-id.js';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** SPIFFE X509-SVID section 4.2 and 4.3: an authority signs certificates and lists, and is nobody's leaf. */
const AUTHORITY_USAGE: readonly KeyUsage[] = ['keyCertSign', 'cRLSign'];

/** A self-signed root. Throws a `PkiError`: `trust-domain-malformed`, `algorithm-unknown`, `validity`. */
export function createAuthority(options: AuthorityOptions): Authority {
  const trustDomain = parseTrustDomain(options.trustDomain);
  const { privateKey, publicKey } = generateKeys(options.algorithm);
  const { pem } = buildCertificate({
    subject: authorityName(trustDomain, options.commonName ?? 'Sallyport root'),
    subjectPublicKey: publicKey,
    issuer: { key: privateKey },
    ...validity(options, 365 * DAY_MS, Number.POSITIVE_INFINITY),
    basicConstraints: { ca: true },
    keyUsage: { bits: AUTHORITY_USAGE },
    extendedKeyUsage: null,
    subjectAltName: { names: [{ uri: `spiffe://${trustDomain}` }] },
  });
  return new SigningAuthority({ trustDomain, certificatePem: pem, chainPem: '', bundlePem: pem, key: privateKey });
}

/**
 * The authority that `save` wrote, for example to use one in several processes. Throws a `PkiError`: `file-unreadable`,
 * `file-exposed` if others could read the key or replace any of the files, `file-malformed` if they are not an authority.
 */
export async function openAuthority(directory: string, options: AuthorityFileOptions = {}): Promise<Authority> {
  return new SigningAuthority(await readAuthority(directory, options));
}

class SigningAuthority implements Authority {
  readonly trustDomain: string;
  readonly certificatePem: string;
  readonly bundlePem: string;
  readonly notAfter: number;
  readonly #parts: AuthorityParts;
  readonly #pathLength: number;
  /** Read once for all leaves. */
  readonly #draftIssuer: DraftIssuer;

  constructor(parts: AuthorityParts) {
    const fields = readCertificate(parts.certificatePem);
    const { notAfter, pathLength = Number.POSITIVE_INFINITY } = fields;
    this.trustDomain = parts.trustDomain;
    this.certificatePem = parts.certificatePem;
    this.bundlePem = parts.bundlePem;
    this.notAfter = notAfter;
    this.#parts = parts;
    this.#pathLength = pathLength;
    this.#draftIssuer = { publicKey: createPublicKey(parts.key), fields };
  }

  intermediate(options: IntermediateOptions = {}): Authority {
    const { privateKey, publicKey } = generateKeys(options.algorithm);
    const pem = this.#certify(publicKey, options);
    return new SigningAuthority({
      ...this.#parts,
      certificatePem: pem,
      chainPem: pem + this.#parts.chainPem,
      key: privateKey,
    });
  }

  certifyIntermediate(csrPem: string, options: Omit<IntermediateOptions, 'algorithm'> = {}): string {
    return this.#certify(parseCsr(csrPem).publicKey, options) + this.#parts.chainPem;
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
      notAfter: Date.now() + HOUR_MS,
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
    return buildCrl(options, { certificate: this.certificatePem, key: this.#parts.key });
  }

  async save(directory: string, options: AuthorityFileOptions = {}): Promise<void> {
    await writeAuthority(this.#parts, directory, options);
  }

  get #issuer() {
    return { key: this.#parts.key, certificate: this.certificatePem };
  }

  #certify(publicKey: KeyObject, options: Omit<IntermediateOptions, 'algorithm'>): string {
    const { pathLength = 0, commonName = 'Sallyport intermediate' } = options;
    if (pathLength >= this.#pathLength) {
      throw new PkiError('path-length', `this authority has path length ${this.#pathLength}; issue from its parent`);
    }
    return buildCertificate({
      subject: authorityName(this.trustDomain, commonName),
      subjectPublicKey: publicKey,
      issuer: this.#issuer,
      ...validity(options, 30 * DAY_MS, this.notAfter),
      basicConstraints: { ca: true, pathLength },
      keyUsage: { bits: AUTHORITY_USAGE },
      extendedKeyUsage: null,
      subjectAltName: { names: [{ uri: `spiffe://${this.trustDomain}` }] },
    }).pem;
  }

  #issueFor(publicKey: KeyObject, options: Omit<IssueOptions, 'algorithm'>): IssuedCertificate {
    const id = parseWorkloadId(options.id);
    if (id.trustDomain !== this.trustDomain) {
      throw new PkiError('id-foreign', `${id} is not of the trust domain ${this.trustDomain}`);
    }
    const names: GeneralName[] = [
      { uri: id.toString() },
      ...(options.dns ?? []).map(parseDnsName),
      ...(options.ip ?? []).map(parseIpAddress),
    ];
    const { content, serial, notAfter } = draftCertificate(
      { subjectPublicKey: publicKey, ...validity(options, HOUR_MS, this.notAfter), subjectAltName: { names } },
      this.#draftIssuer,
    );
    return this.#withChain({ pem: toPem('CERTIFICATE', signed(content, this.#parts.key)), serial, notAfter });
  }

  #withChain({ pem, serial, notAfter }: BuiltCertificate): IssuedCertificate {
    return { certificatePem: pem + this.#parts.chainPem, serial, notAfter };
  }
}

/** The life of a certificate, cut to that of its issuer. */
function validity(
  { ttlMs, notBefore }: { readonly ttlMs?: number; readonly notBefore?: Instant },
  defaultTtlMs: number,
  latestMs: number,
): { readonly notBefore: number; readonly notAfter: number } {
  const from = Number(notBefore ?? Date.now());
  const notAfter = Math.min(from + (ttlMs ?? defaultTtlMs), latestMs);
  if (!(notAfter - from >= 1000)) {
    throw new PkiError('validity', 'the certificate would never be valid: mend ttlMs, or renew the authority');
  }
  return { notBefore: notBefore === undefined ? from - BACKDATE_MS : from, notAfter };
}

/** The organization is for people, and X.520 ends it at 64 characters; the trust domain that counts is the URI. */
function authorityName(trustDomain: string, commonName: string): DistinguishedName {
  return { organization: trustDomain.slice(0, 64), commonName };
}
