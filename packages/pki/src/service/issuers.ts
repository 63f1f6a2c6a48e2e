import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { Secret } from '@sallyport/core';
import {
  checkSigner,
  isSecret,
  parseCrl,
  readSafeFile,
  type Violation,
  verifyCrl,
  violation,
} from '@sallyport/core/spi';
import { type CertificateFields, readCertificate } from '../certificate-fields.js';
import { splitCertificates } from '../pem.js';
import { foreignKey, localKey, type Signer, type SigningKey } from '../signer.js';

/** An online authority: its certificate and how it signs. */
export type IssuerOptions = {
  /** File: its certificate, then those above it up to the root, which is left out; as `certifyIntermediate` gives it. PEM. */
  readonly certificate: string;
} & (
  | {
      /** File: its key, encrypted; as `createIssuerKey` writes it. PEM. */
      readonly key: string;
      readonly passphrase: Secret;
    }
  | {
      /** A key that is kept elsewhere: HSM, key service. */
      readonly signer: Signer;
    }
);

export interface AuthorityMaterial {
  /** Signs. */
  readonly issuer: IssuerOptions;
  /** Signed before: each keeps its list up to date until the last leaf below it has expired. Left out: none. */
  readonly retiring?: readonly IssuerOptions[];
  /** File: the roots, PEM. During a change there are two: each stays until the last leaf below it has expired. */
  readonly roots: string;
  /** Files: a current list of every root (and of every authority between a root and an issuer), PEM. The roots sign them offline. */
  readonly rootLists: readonly string[];
}

/** An issuer, ready to sign. */
export interface Issuer {
  /** SHA-256 of its certificate, hexadecimal. */
  readonly id: string;
  readonly certificate: X509Certificate;
  readonly certificatePem: string;
  /** Its certificate and those above it, without the root. */
  readonly chainPem: string;
  readonly fields: CertificateFields;
  readonly key: SigningKey;
}

export interface Issuers {
  readonly trustDomain: string;
  readonly current: Issuer;
  /** The current one first. */
  readonly all: readonly Issuer[];
  readonly roots: readonly X509Certificate[];
  /** The roots, then whatever stands between them and a leaf. */
  readonly bundlePem: string;
  /** PEM, one list an entry. */
  readonly rootLists: readonly string[];
  /** When the first of these lists ends, ms since the epoch. */
  readonly rootListsEnd: number;
}

/** Where it stands among the options, for violations. */
const PATH = 'authorityService.authority';

export interface LoadedIssuers {
  /** Undefined exactly when there are violations. */
  readonly issuers: Issuers | undefined;
  readonly violations: readonly Violation[];
}

/** Reads and checks everything an authority signs with. `now` is ms since the epoch. Never throws. */
export async function loadIssuers(material: AuthorityMaterial, now: number): Promise<LoadedIssuers> {
  const violations: Violation[] = [];
  const roots = await loadRoots(material.roots, now, violations);
  const all: Issuer[] = [];
  for (const [index, options] of [material.issuer, ...(material.retiring ?? [])].entries()) {
    const path = index === 0 ? `${PATH}.issuer` : `${PATH}.retiring[${index - 1}]`;
    const issuer = await loadIssuer(options, path, violations);
    if (issuer) all.push(issuer);
    if (issuer && roots.length > 0 && !endsIn(issuer, roots)) {
      violations.push(violation('tls-certificate-untrusted', `${path}.certificate`, 'it does not chain to the roots'));
    }
    if (issuer && index === 0 && issuer.fields.notAfter <= now) {
      violations.push(violation('tls-certificate-expired', `${path}.certificate`, 'the issuer has expired'));
    }
  }
  const between = all.flatMap(({ chainPem }) => splitCertificates(chainPem));
  const online = new Set(all.map(({ certificatePem }) => certificatePem));
  const offline = [...roots, ...between.filter((pem) => !online.has(pem)).map((pem) => new X509Certificate(pem))];
  const { lists, end, revokes } = await loadLists(material.rootLists, offline, now, violations);
  // A retiring one may be revoked: it keeps its list up to date all the same.
  if (all[0] && certificatesOf(all[0].chainPem)?.some(revokes)) {
    const problem = 'a root has revoked it: nobody would accept what it signs';
    violations.push(violation('tls-certificate-untrusted', `${PATH}.issuer.certificate`, problem));
  }
  const domains = new Set([...roots, ...all.map(({ certificate }) => certificate)].map(trustDomainOf));
  const [trustDomain] = domains;
  const [current] = all;
  if (violations.length === 0 && (domains.size !== 1 || trustDomain === undefined)) {
    const problem = 'roots and issuers do not name one and the same trust domain';
    violations.push(violation('tls-material-invalid', `${PATH}.roots`, problem));
  }
  if (violations.length > 0 || current === undefined || trustDomain === undefined) {
    return { issuers: undefined, violations };
  }
  const bundlePem = [...new Set([...roots.map((root) => root.toString()), ...between])].join('');
  return {
    violations,
    issuers: { trustDomain, current, all, roots, bundlePem, rootLists: lists, rootListsEnd: end },
  };
}

async function loadRoots(path: string, now: number, violations: Violation[]): Promise<X509Certificate[]> {
  const text = await load(path, `${PATH}.roots`, { private: false }, violations);
  if (text === undefined) return [];
  const roots = certificatesOf(text);
  if (roots === undefined || roots.length === 0) {
    violations.push(violation('tls-ca-empty', `${PATH}.roots`, 'there is no root certificate in it'));
    return [];
  }
  for (const root of roots) {
    const verdict = checkSigner(root.raw);
    const problem = !verdict.ok ? verdict.reason : !isRoot(root) ? 'it is not self-signed' : undefined;
    if (problem) violations.push(violation('tls-material-invalid', `${PATH}.roots`, `a root is none: ${problem}`));
    if (Date.parse(root.validTo) <= now) {
      violations.push(violation('tls-certificate-expired', `${PATH}.roots`, `a root expired on ${root.validTo}`));
    }
  }
  return roots;
}

async function loadIssuer(options: IssuerOptions, path: string, violations: Violation[]): Promise<Issuer | undefined> {
  const chainPem = await load(options.certificate, `${path}.certificate`, { private: false }, violations);
  const key =
    'signer' in options ? signerKey(options.signer, path, violations) : await fileKey(options, path, violations);
  if (chainPem === undefined || key === undefined) return undefined;
  const refuse = (problem: string) => {
    violations.push(violation('tls-material-invalid', `${path}.certificate`, problem));
    return undefined;
  };
  const chain = certificatesOf(chainPem)?.filter((certificate) => !isRoot(certificate)) ?? [];
  const [certificate] = chain;
  if (certificate === undefined) return refuse('there is no certificate of an issuer below a root in it');
  const verdict = checkSigner(certificate.raw);
  if (!verdict.ok) return refuse(`it cannot issue: ${verdict.reason}`);
  if (!key.publicKey.equals(certificate.publicKey)) {
    violations.push(violation('tls-key-mismatch', `${path}.${'signer' in options ? 'signer' : 'key'}`));
    return undefined;
  }
  const pems = chain.map((one) => one.toString());
  const certificatePem = pems[0] ?? '';
  return {
    id: certificate.fingerprint256.replaceAll(':', ''),
    certificate,
    certificatePem,
    chainPem: pems.join(''),
    fields: readCertificate(certificatePem),
    key,
  };
}

function signerKey(signer: Signer, path: string, violations: Violation[]): SigningKey | undefined {
  try {
    return foreignKey(signer);
  } catch {
    const problem = 'its public key is none of P-256, P-384 and Ed25519';
    violations.push(violation('tls-key-weak', `${path}.signer`, problem));
    return undefined;
  }
}

async function fileKey(
  { key: file, passphrase }: { readonly key: string; readonly passphrase: Secret },
  path: string,
  violations: Violation[],
): Promise<SigningKey | undefined> {
  const text = await load(file, `${path}.key`, { private: true }, violations);
  const problems = isSecret(passphrase) ? await passphrase.check(`${path}.passphrase`) : [];
  violations.push(...problems);
  if (text === undefined || problems.length > 0) return undefined;
  if (!text.includes('-----BEGIN ENCRYPTED PRIVATE KEY-----')) {
    violations.push(violation('authority-key-plain', `${path}.key`));
    return undefined;
  }
  try {
    return localKey(createPrivateKey({ key: text, passphrase: await passphrase.read() }));
  } catch {
    // What OpenSSL says of a wrong passphrase helps nobody.
    const problem = 'the passphrase is wrong, or the key is none of P-256, P-384 and Ed25519';
    violations.push(violation('tls-material-invalid', `${path}.key`, problem));
    return undefined;
  }
}

async function loadLists(
  files: readonly string[],
  issuers: readonly X509Certificate[],
  now: number,
  violations: Violation[],
): Promise<LoadedLists> {
  const refuse = (problem: string) => violations.push(violation('tls-crl-invalid', `${PATH}.rootLists`, problem));
  const lists: string[] = [];
  const covered = new Set<X509Certificate>();
  const revocations: ReadList[] = [];
  let end = Number.POSITIVE_INFINITY;
  for (const file of files) {
    const text = await load(file, `${PATH}.rootLists`, { private: false }, violations);
    for (const [pem] of text?.matchAll(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g) ?? []) {
      const read = readList(pem, issuers);
      if (read.signer === undefined) {
        refuse(`${file}: ${read.problem}`);
        continue;
      }
      if (read.nextUpdate <= now) refuse(`${file} is past its time; let the root sign a new one`);
      covered.add(read.signer);
      revocations.push(read);
      end = Math.min(end, read.nextUpdate);
      lists.push(`${pem}\n`);
    }
  }
  for (const issuer of issuers) {
    if (!covered.has(issuer)) refuse(`there is no list of ${issuer.subject?.replaceAll('\n', ', ') ?? 'a root'}`);
  }
  const revokes = (certificate: X509Certificate) =>
    revocations.some(
      ({ signer, revoked }) => signer && certificate.checkIssued(signer) && revoked.has(certificate.serialNumber),
    );
  return { lists, end, revokes };
}

interface LoadedLists {
  readonly lists: readonly string[];
  /** When the first of them ends, ms since the epoch. */
  readonly end: number;
  readonly revokes: (certificate: X509Certificate) => boolean;
}

interface ReadList {
  readonly signer?: X509Certificate;
  /** Serial numbers. */
  readonly revoked: ReadonlySet<string>;
  readonly nextUpdate: number;
  readonly problem: string;
}

function readList(pem: string, issuers: readonly X509Certificate[]): ReadList {
  try {
    const list = parseCrl(Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64'));
    const signer = issuers.find(({ publicKey }) => verifyCrl(list, publicKey));
    const { nextUpdate, revokedSerials } = list;
    const revoked = new Set(revokedSerials);
    return { ...(signer ? { signer } : {}), revoked, nextUpdate, problem: 'no root has signed it' };
  } catch (error) {
    return { revoked: new Set(), nextUpdate: 0, problem: error instanceof Error ? error.message : 'it is damaged' };
  }
}

async function load(
  file: string,
  path: string,
  expected: { readonly private: boolean },
  violations: Violation[],
): Promise<string | undefined> {
  const { text, findings } = await readSafeFile(file, expected);
  const ids = {
    unreadable: 'tls-file-unreadable',
    exposed: 'tls-key-exposed',
    replaceable: 'tls-path-writable',
  } as const;
  for (const { danger, problem } of findings) violations.push(violation(ids[danger], path, problem));
  return text;
}

function certificatesOf(text: string): X509Certificate[] | undefined {
  try {
    return splitCertificates(text).map((pem) => new X509Certificate(pem));
  } catch {
    return undefined;
  }
}

function isRoot(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey);
}

/** Whether each certificate of the chain was signed by the next, and the last by a root. */
function endsIn({ chainPem }: Issuer, roots: readonly X509Certificate[]): boolean {
  const chain = certificatesOf(chainPem) ?? [];
  return chain.every((certificate, index) => {
    const next = chain[index + 1];
    return (next ? [next] : roots).some((one) => certificate.checkIssued(one) && certificate.verify(one.publicKey));
  });
}

function trustDomainOf({ raw }: X509Certificate): string | undefined {
  const verdict = checkSigner(raw);
  return verdict.ok ? verdict.trustDomain : undefined;
}
