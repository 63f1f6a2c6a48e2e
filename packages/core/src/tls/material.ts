import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto';
import { checkLeaf, checkSigner } from '../identity/leaf-check.js';
import { parseTrustDomain, type SpiffeId } from '../identity/spiffe-id.js';
import type { ViolationId } from '../policy/catalogue.js';
import { joinPath } from '../policy/option-path.js';
import { type Violation, violation } from '../policy/violation.js';
import { findPath } from './certificate-path.js';
import { hasStrongKey } from './key-strength.js';
import { derOf, parseCertificates, pemBlocks, pemOf } from './pem.js';
import { type ReadListsOptions, type RevocationLists, readRevocationLists, revocationKeysOf } from './revocation.js';
import type { TlsMaterial } from './source.js';

/** Material as authorities deliver it: all fields PEM. */
export interface PemMaterial {
  /** Leaf first, then intermediates. */
  readonly cert: string;
  readonly key: string;
  /** Passphrase of the key, if it is encrypted. */
  readonly passphrase?: string | undefined;
  /** Trust anchors of the own trust domain. */
  readonly ca: string;
  /** Trust anchors of federated trust domains, by name. */
  readonly bundles: Readonly<Record<string, string>>;
  /** Revocation lists, one or more a text; none: lists are not used. */
  readonly crl: readonly string[];
}

export interface MaterialContext {
  readonly generation: number;
  /** Ms since the epoch. */
  readonly now: number;
  /** How long revocation lists count after their time, ms. Default 0. */
  readonly revocationGraceMs?: number;
}

export interface ParsedMaterial {
  /** Undefined exactly when there are violations. */
  readonly material: TlsMaterial | undefined;
  readonly violations: readonly Violation[];
}

/**
 * Turns PEM into material that peers will accept, or says everything that keeps it from being so: what OpenSSL would find
 * out in the middle of somebody's handshake is found here, before anything serves. Paths of violations are those of
 * `tls.fromFiles`. Never throws.
 */
export function parseMaterial(
  pem: PemMaterial,
  { generation, now, revocationGraceMs: graceMs = 0 }: MaterialContext,
): ParsedMaterial {
  const violations: Violation[] = [];
  const refuse = (id: ViolationId, field: string, problem?: string) => {
    violations.push(violation(id, `tls.${field}`, problem));
    return undefined;
  };

  const chain = readChain(pem.cert, refuse);
  const key = readKey(pem, refuse);
  const anchors = readAnchors(pem.ca, 'ca', refuse);
  const federated = Object.entries(pem.bundles).map(([domain, text]) => {
    const field = joinPath('bundles', [domain]);
    const certificates = readAnchors(text, field, refuse);
    checkDomain(domain, certificates ?? [], field, refuse);
    return [domain, certificates ?? []] as const;
  });

  const [leaf, ...intermediates] = chain ?? [];
  const identity = leaf && readIdentity(leaf, refuse);
  if (leaf) checkValidity(leaf, now, 'cert', 'the certificate', refuse);
  if (leaf && key && !leaf.checkPrivateKey(key)) refuse('tls-key-mismatch', 'key');
  const path = leaf && anchors && findPath(leaf, intermediates, anchors);
  if (leaf && anchors && !path) refuse('tls-certificate-untrusted', 'cert');
  for (const ca of path?.slice(1) ?? []) checkValidity(ca, now, 'ca', `the CA ${nameOf(ca)}`, refuse);
  if (identity && anchors) {
    checkDomain(identity.trustDomain, anchors, 'ca', refuse);
    if (Object.hasOwn(pem.bundles, identity.trustDomain)) {
      refuse('option-invalid', 'bundles', 'the bundle of the own trust domain is given as ca; bundles are for others');
    }
  }
  const authorities = [...(anchors ?? []), ...federated.flatMap(([, certificates]) => certificates), ...intermediates];
  const ownKeys = leaf && pem.crl.length > 0 ? revocationKeysOf(leaf, authorities) : [];
  const issuers = path?.slice(1) ?? [];
  const { lists, revoked } = readLists(pem.crl, { authorities, issuers, ownKeys, now, graceMs }, refuse);

  if (violations.length > 0 || !leaf || !identity || !key || !anchors) return { material: undefined, violations };
  // Exported anew: an encrypted key is decrypted once, and whatever else stood in the file is left behind.
  const privateKey = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  return {
    violations,
    material: Object.freeze({
      generation,
      identity,
      leaf,
      certificateChain: pemOf([leaf, ...intermediates]),
      privateKey: () => privateKey,
      notBefore: Date.parse(leaf.validFrom),
      notAfter: Date.parse(leaf.validTo),
      bundles: new Map([[identity.trustDomain, anchors], ...federated]),
      crls: Object.freeze(pem.crl.flatMap(pemBlocks).map((block) => block.pem)),
      lists: Object.freeze(lists),
      revoked,
    }),
  };
}

export interface ParsedBundle {
  /** Undefined exactly when there are violations. */
  readonly anchors: readonly X509Certificate[] | undefined;
  /** The one trust domain that they name; undefined when none of them names one. */
  readonly trustDomain: string | undefined;
  readonly violations: readonly Violation[];
}

/** Trust anchors (PEM) by themselves, judged as `parseMaterial` judges them. `path` is the option they come from. Never throws. */
export function parseBundle(text: string, path: string): ParsedBundle {
  const violations: Violation[] = [];
  const refuse = (id: ViolationId, _field: string, problem?: string) => {
    violations.push(violation(id, path, problem));
    return undefined;
  };
  const anchors = readAnchors(text, 'ca', refuse);
  const trustDomain = anchors?.map(domainOf).find((domain) => domain !== undefined);
  if (trustDomain !== undefined) checkDomain(trustDomain, anchors ?? [], 'ca', refuse);
  return violations.length > 0
    ? { anchors: undefined, trustDomain: undefined, violations }
    : { anchors, trustDomain, violations };
}

function domainOf({ raw }: X509Certificate): string | undefined {
  const verdict = checkSigner(raw);
  return verdict.ok ? verdict.trustDomain : undefined;
}

type Refuse = (id: ViolationId, field: string, problem?: string) => undefined;

function readChain(text: string, refuse: Refuse): X509Certificate[] | undefined {
  const chain = readCertificates(text, 'cert', refuse);
  if (chain === undefined) return undefined;
  const [leaf, ...issuers] = chain;
  if (leaf === undefined) return refuse('tls-material-invalid', 'cert', 'there is no certificate in it');
  if (leaf.ca && issuers.some((certificate) => !certificate.ca)) {
    return refuse(
      'tls-material-invalid',
      'cert',
      'the certificate of the workload must come first, its issuers after it',
    );
  }
  checkStrength(leaf, 'cert', refuse);
  for (const issuer of issuers) checkAuthority(issuer, 'cert', refuse);
  return chain;
}

function readAnchors(text: string, field: string, refuse: Refuse): X509Certificate[] | undefined {
  const anchors = readCertificates(text, field, refuse);
  if (anchors === undefined) return undefined;
  if (anchors.length === 0) return refuse('tls-ca-empty', field);
  for (const anchor of anchors) checkAuthority(anchor, field, refuse);
  return anchors;
}

function readCertificates(text: string, field: string, refuse: Refuse): X509Certificate[] | undefined {
  try {
    return parseCertificates(text);
  } catch (error) {
    return refuse('tls-material-invalid', field, error instanceof Error ? error.message : undefined);
  }
}

function readKey({ key, passphrase }: PemMaterial, refuse: Refuse): KeyObject | undefined {
  try {
    return createPrivateKey(passphrase === undefined ? key : { key, passphrase });
  } catch {
    // OpenSSL's own words say nothing to an operator ("DECODER routines::unsupported").
    const encrypted = /ENCRYPTED/.test(key);
    if (!encrypted) return refuse('tls-material-invalid', 'key', 'there is no private key in it');
    const problem = passphrase === undefined ? 'the key is encrypted; give its passphrase' : 'the passphrase is wrong';
    return refuse('tls-material-invalid', 'key', problem);
  }
}

function readIdentity(leaf: X509Certificate, refuse: Refuse): SpiffeId | undefined {
  const verdict = checkLeaf(leaf.raw);
  return verdict.ok
    ? verdict.id
    : refuse('identity-invalid', 'cert', `the certificate is not an X.509-SVID: ${verdict.reason}`);
}

function readLists(texts: readonly string[], options: ReadListsOptions, refuse: Refuse): RevocationLists {
  const blocks = texts.flatMap(pemBlocks);
  if (texts.length === 0) return { lists: [], revoked: new Set(), problems: [] };
  if (texts.some((text) => !pemBlocks(text).some((block) => block.label === 'X509 CRL'))) {
    refuse('tls-crl-invalid', 'crl', 'there is no revocation list in it');
  }
  const read = readRevocationLists(blocks.map(derOf), options);
  for (const problem of read.problems) refuse('tls-crl-invalid', 'crl', problem);
  return read;
}

function checkAuthority(certificate: X509Certificate, field: string, refuse: Refuse): void {
  const verdict = checkSigner(certificate.raw);
  if (!verdict.ok) refuse('tls-material-invalid', field, `${nameOf(certificate)} is no CA: ${verdict.reason}`);
  checkStrength(certificate, field, refuse);
}

/** A CA that names its trust domain must not stand in the bundle of another. */
function checkDomain(domain: string, anchors: readonly X509Certificate[], field: string, refuse: Refuse): undefined {
  try {
    if (parseTrustDomain(domain) !== domain) throw new TypeError('it is written as a name, not as an id');
  } catch (error) {
    return refuse('option-invalid', field, error instanceof Error ? error.message : undefined);
  }
  for (const anchor of anchors) {
    const named = domainOf(anchor);
    if (named !== undefined && named !== domain) {
      refuse('tls-material-invalid', field, `${nameOf(anchor)} is a CA of ${named}, not of ${domain}`);
    }
  }
}

function checkValidity(certificate: X509Certificate, now: number, field: string, which: string, refuse: Refuse): void {
  if (Date.parse(certificate.validTo) <= now) {
    refuse('tls-certificate-expired', field, `${which} expired on ${certificate.validTo}`);
  }
  if (Date.parse(certificate.validFrom) > now) {
    refuse('tls-certificate-not-yet-valid', field, `${which} is valid only from ${certificate.validFrom}`);
  }
}

function checkStrength(certificate: X509Certificate, field: string, refuse: Refuse): void {
  if (hasStrongKey(certificate)) return;
  const { asymmetricKeyType: type = 'unknown', asymmetricKeyDetails: details = {} } = certificate.publicKey;
  const kind = [type, details.namedCurve ?? details.modulusLength].filter((part) => part !== undefined).join(' ');
  refuse('tls-key-weak', field, `the key of ${nameOf(certificate)} is ${kind}`);
}

function nameOf({ subject, serialNumber }: X509Certificate): string {
  return subject ? JSON.stringify(subject.replaceAll('\n', ', ')) : `the certificate ${serialNumber}`;
}
