import { createHash, type X509Certificate } from 'node:crypto';
import { readProfile } from '../identity/certificate-profile.js';
import { type Crl, parseCrl, verifyCrl } from '../identity/crl.js';
import { checkSigner } from '../identity/leaf-check.js';
import type { TlsMaterial } from './source.js';

const GRACE_LEAD_MS = 1000;

/** The list of one authority, as far as it matters once it has been read and verified. */
export interface RevocationList {
  readonly authority: X509Certificate;
  /** Of the authority's certificate: a connection that keeps it stands below this authority. */
  readonly authorityKey: string;
  /** Whether the authority is one of those above the own certificate. */
  readonly own: boolean;
  /** CRL number; undefined: it has none. */
  readonly number: bigint | undefined;
  /** Ms since the epoch, like the others. */
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  /** Until then it counts: `nextUpdate` and the grace. */
  readonly closesAt: number;
}

/**
 * Names a certificate in a set of revoked ones: `<SHA-256 of the issuer's name>/<serial>`. The name as OpenSSL prints it, in
 * lower case: like OpenSSL, and unlike DER, it does not care which type of string a name is written in.
 */
export function revocationKeyOf({ issuer, serialNumber }: X509Certificate): string {
  return revocationKey(issuer, serialNumber);
}

/** An empty name is undefined, whatever the types of Node say. */
function revocationKey(issuer: string | undefined, serial: string): string {
  return `${createHash('sha256')
    .update((issuer ?? '').toLowerCase())
    .digest('hex')}/${serial}`;
}

/**
 * The keys of a certificate and of all that may have issued it, the certificate's own first: what a connection keeps of its
 * peer, to be ended when one of them is revoked. By name only: OpenSSL has verified a chain through some of `authorities`, and
 * one key too many ends a connection whose next handshake decides.
 */
export function revocationKeysOf(
  certificate: X509Certificate,
  authorities: readonly X509Certificate[],
): readonly string[] {
  const line = new Set([certificate]);
  // A set that grows is iterated to its new end.
  for (const below of line) {
    for (const authority of authorities) if (below.checkIssued(authority)) line.add(authority);
  }
  return [...new Set([...line].map(revocationKeyOf))];
}

/** Whether the material's revocation lists name the certificate. Cheap: a live connection may ask on each call. */
export function isRevoked(material: Pick<TlsMaterial, 'revoked'>, key: string): boolean {
  return material.revoked.has(key);
}

export interface RevocationProblem {
  readonly reason: 'revoked' | 'revocation-unknown';
  readonly detail: string;
}

/**
 * Why a connection must not stay open: its peer or an authority above it is revoked, or the list that would tell has run out.
 * `keys` are those of `revocationKeysOf`.
 */
export function revocationProblem(
  { revoked, lists }: Pick<TlsMaterial, 'revoked' | 'lists'>,
  keys: readonly string[],
  now: number,
): RevocationProblem | undefined {
  const at = keys.findIndex((key) => revoked.has(key));
  if (at >= 0) {
    const serial = `serial ${keys[at]?.split('/')[1]}`;
    return { reason: 'revoked', detail: at === 0 ? serial : `an authority above its certificate, ${serial}` };
  }
  const over = lists.find(({ authorityKey, closesAt }) => closesAt <= now && keys.includes(authorityKey));
  return (
    over && { reason: 'revocation-unknown', detail: `the revocation list of ${nameOf(over.authority)} has run out` }
  );
}

/** From when on a list counts by its grace, ms since the epoch: early enough that OpenSSL has it no more when its time is over. */
export function graceBeginsAt({ nextUpdate, closesAt }: RevocationList): number {
  return closesAt > nextUpdate ? nextUpdate - GRACE_LEAD_MS : nextUpdate;
}

/** Whether one of the lists is in its grace, or about to be. */
export function isInGrace(lists: readonly RevocationList[], now: number): boolean {
  return lists.some((list) => graceBeginsAt(list) <= now && now < list.closesAt);
}

/** Whose list it is, for people. */
export function authorityName({ authority }: RevocationList): string {
  return nameOf(authority);
}

/** Which authority's list in `next` is older than the one in use: whoever replays it wants a revocation forgotten. */
export function rollbackProblem(
  next: readonly RevocationList[],
  current: readonly RevocationList[],
): string | undefined {
  for (const list of next) {
    const known = current.find(({ authority }) => authority.fingerprint256 === list.authority.fingerprint256);
    if (known && isOlder(list, known))
      return `the revocation list of ${nameOf(list.authority)} is older than the one in use`;
  }
  return undefined;
}

function isOlder(list: RevocationList, known: RevocationList): boolean {
  if (list.number !== undefined && known.number !== undefined && list.number !== known.number) {
    return list.number < known.number;
  }
  return list.thisUpdate < known.thisUpdate;
}

export interface RevocationLists {
  /** The newest one of each authority. */
  readonly lists: readonly RevocationList[];
  readonly revoked: ReadonlySet<string>;
  /** Why the lists cannot be used; empty when they can. */
  readonly problems: readonly string[];
}

export interface ReadListsOptions {
  /** Who may sign lists. */
  readonly authorities: readonly X509Certificate[];
  /** Who must have one: with lists in use, OpenSSL refuses every chain in which an issuer lacks a current one. */
  readonly issuers: readonly X509Certificate[];
  /** The keys of the own certificate and of those above it: see `revocationKeysOf`. */
  readonly ownKeys: readonly string[];
  /** Ms since the epoch. */
  readonly now: number;
  /** How long a list counts after its time, ms. */
  readonly graceMs: number;
}

/** Reads revocation lists (DER) and checks that they are signed by one of the authorities, in their time, and complete. */
export function readRevocationLists(
  ders: readonly Uint8Array[],
  { authorities, issuers, ownKeys, now, graceMs }: ReadListsOptions,
): RevocationLists {
  const problems: string[] = [];
  const revoked = new Set<string>();
  // By fingerprint: an authority may stand in the bundle and in the own chain.
  const lists = new Map<string, RevocationList>();
  ders.forEach((der, index) => {
    const which = ders.length > 1 ? `list number ${index + 1}` : 'the list';
    const crl = tryParse(der);
    if (typeof crl === 'string') {
      problems.push(`${which} is damaged: ${crl}`);
      return;
    }
    const signers = authorities.filter((ca) => isNamed(ca, crl.issuerDer) && verifyCrl(crl, ca.publicKey));
    if (signers.length === 0) problems.push(`${which} is not signed by a CA of the bundle or the chain`);
    if (crl.thisUpdate > now) problems.push(`${which} is not valid yet`);
    if (crl.nextUpdate + graceMs <= now)
      problems.push(`${which} is past its next update (${new Date(crl.nextUpdate).toISOString()})`);
    for (const authority of signers) {
      const { fingerprint256 } = authority;
      const list = listOf(crl, lists.get(fingerprint256)?.authority ?? authority, ownKeys, graceMs);
      const known = lists.get(fingerprint256);
      if (!known || isOlder(known, list)) lists.set(fingerprint256, list);
      for (const serial of crl.revokedSerials) revoked.add(revocationKey(authority.subject, serial));
    }
  });
  for (const issuer of issuers) {
    if (!lists.has(issuer.fingerprint256)) problems.push(`there is no list of the issuer ${nameOf(issuer)}`);
  }
  return { lists: [...lists.values()], revoked, problems };
}

function listOf(
  { number, thisUpdate, nextUpdate }: Crl,
  authority: X509Certificate,
  ownKeys: readonly string[],
  graceMs: number,
): RevocationList {
  const authorityKey = revocationKeyOf(authority);
  return {
    authority,
    authorityKey,
    own: ownKeys.includes(authorityKey),
    number: number === undefined ? undefined : BigInt(`0x${number}`),
    thisUpdate,
    nextUpdate,
    closesAt: nextUpdate + graceMs,
  };
}

function nameOf({ subject, serialNumber }: X509Certificate): string {
  return subject?.replaceAll('\n', ', ') ?? `with the certificate ${serialNumber}`;
}

function tryParse(der: Uint8Array): Crl | string {
  try {
    return parseCrl(der);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** A certificate that cannot be read, which is somebody else's complaint, has no name. */
function isNamed(certificate: X509Certificate, nameDer: Uint8Array): boolean {
  return checkSigner(certificate.raw).ok && Buffer.compare(readProfile(certificate.raw).subject, nameDer) === 0;
}
