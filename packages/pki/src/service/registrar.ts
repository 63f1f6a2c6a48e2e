import { createHash, type KeyObject, randomBytes, type X509Certificate } from 'node:crypto';
import {
  type Clock,
  defaultIdentityTemplate,
  type EventSink,
  type PeerIdentity,
  parseIdentityTemplate,
} from '@sallyport/core/spi';
import { BACKDATE_MS } from '../certificate.js';
import { parseCsr } from '../csr.js';
import { refuseExcess } from '../csr-attributes.js';
import { PkiError } from '../errors.js';
import type { IssuedCertificate } from '../identity.js';
import { parseWorkloadId } from '../workload-id.js';
import { signLeaf } from './leaf.js';
import type { ResolvedAuthorityLimits } from './options.js';
import { authorityId, type JoinToken, type JoinTokenRequest, type RevokeRequest } from './protocol.js';
import { RateLimiter } from './rate-limiter.js';
import { Refusal } from './refusal.js';
import type { Store } from './store.js';
import type { TrustPublisher } from './trust-publisher.js';

/** Somebody who came through the door that asks for a certificate. */
export interface Member {
  readonly peer: PeerIdentity;
  readonly leaf: X509Certificate;
}

export interface RegistrarOptions {
  readonly store: Store;
  readonly publisher: TrustPublisher;
  readonly leafTtlMs: number;
  readonly limits: ResolvedAuthorityLimits;
  readonly clock: Clock;
  readonly events: EventSink;
}

const DEFAULT_TOKEN_TTL_MS = 600_000;
const MAX_KEYS = 10_000;

/** Decides who gets a certificate, and what is in it. Knows nothing of HTTP; every method rejects with a Refusal or a `PkiError`. */
export class Registrar {
  readonly #options: RegistrarOptions;
  /** Those with a token and those with a certificate apart: strangers must not keep anybody from renewing. */
  readonly #enrolments: RateLimiter;
  readonly #renewals: RateLimiter;
  readonly #addresses: RateLimiter;
  readonly #tokens: RateLimiter;
  readonly #identities: RateLimiter;

  constructor(options: RegistrarOptions) {
    this.#options = options;
    const { clock, limits } = options;
    const perMinute = (count: number) =>
      new RateLimiter({ clock, maxKeys: MAX_KEYS, perMinute: count, burst: Math.ceil(count / 2) });
    const { requestsPerSecond: rate } = limits;
    const everybody = { clock, maxKeys: 1, perMinute: rate * 60, burst: rate };
    this.#enrolments = new RateLimiter(everybody);
    this.#renewals = new RateLimiter(everybody);
    this.#addresses = perMinute(limits.perAddressPerMinute);
    this.#tokens = perMinute(limits.perTokenPerMinute);
    this.#identities = perMinute(limits.perIdentityPerMinute);
  }

  /** A token is spent by success alone: who could not be given a certificate may come again with it. */
  async enrol(joinToken: string, csrPem: string, address: string): Promise<IssuedCertificate> {
    const { store, clock } = this.#options;
    const hash = hashOf(joinToken);
    this.#limit(this.#tokens, hash);
    this.#limit(this.#enrolments, '');
    const taken = store.ledger.take(hash, clock.now());
    if (taken === undefined) {
      const detail = 'the join token is unknown, expired, or was used';
      throw new Refusal('join-token-refused', 'the join token is not valid', { detail });
    }
    try {
      const publicKey = acceptedKey(csrPem, taken.id);
      return await this.#issue(publicKey, taken.id, { spent: hash, address });
    } catch (error) {
      taken.giveBack();
      throw error;
    }
  }

  /** For the own name only, and with another key: a stolen one ends with its certificate. */
  async renew(csrPem: string, { peer, leaf }: Member, address: string): Promise<IssuedCertificate> {
    this.#limit(this.#renewals, '');
    if (peer.id === authorityId(peer.spiffeId.trustDomain))
      throw new Refusal('identity-refused', 'this identity is not renewed');
    this.#requireIssuedHere(peer, leaf);
    const publicKey = acceptedKey(csrPem, peer.id);
    if (publicKey.equals(leaf.publicKey)) throw new Refusal('csr-refused', 'the key is that of the old certificate');
    return await this.#issue(publicKey, peer.id, { by: peer, address });
  }

  /** Counts a request of somebody without a certificate, whatever it holds; refuses it when there were too many. */
  admitStranger(address: string): void {
    this.#limit(this.#addresses, address);
  }

  /** Counts a request of a member; refuses it when there were too many, or when it was revoked a moment ago. */
  admit({ id, serial }: PeerIdentity): void {
    this.#limit(this.#identities, id);
    if (this.#options.store.ledger.isRevoked(serial)) throw new Refusal('revoked', 'the certificate has been revoked');
  }

  /** Resolves, with the serials, when the new lists are signed, on the disk and on their way to all who follow. */
  async revoke(request: RevokeRequest, by: string): Promise<string[]> {
    const { store, publisher, clock, events } = this.#options;
    const { id, serials } = this.#meant(request);
    const at = clock.now();
    const reason = request.reason === undefined ? {} : { reason: request.reason };
    const facts = serials.map((serial) => store.record({ fact: 'revoked', serial, at, ...reason }));
    if ('identity' in request) {
      // An issuance under way, and one that a restored store does not know, must not escape.
      facts.push(store.record({ fact: 'identity-revoked', id, at, until: at + this.#options.leafTtlMs + BACKDATE_MS }));
    }
    const word = request.reason ?? 'unspecified';
    facts.push(store.audit({ what: 'revoked', identity: id, serials, reason: word, by }));
    events.emit('certificates-revoked', { identity: id, serials, reason: word, by });
    // First out, then down: peers must hear of it even when the disk is full.
    const results = await Promise.allSettled([publisher.refresh(), ...facts]);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
    return serials;
  }

  async createJoinToken(request: JoinTokenRequest, by: string): Promise<JoinToken> {
    const { store, clock, limits } = this.#options;
    const id = this.#idOf(request);
    if (store.ledger.tokens >= limits.maxJoinTokens) store.prune();
    if (store.ledger.tokens >= limits.maxJoinTokens)
      throw new Refusal('rate-limited', 'too many join tokens are open', { retryAfterMs: 60_000 });
    const joinToken = randomBytes(32).toString('base64url');
    const expiresAt = clock.now() + (request.ttlMs ?? DEFAULT_TOKEN_TTL_MS);
    await store.record(
      { fact: 'join-token', hash: hashOf(joinToken), id, expiresAt },
      { what: 'join-token-created', identity: id, expiresAt: new Date(expiresAt).toISOString(), by },
    );
    return { joinToken, id, expiresAt };
  }

  async #issue(publicKey: KeyObject, id: string, how: How): Promise<IssuedCertificate> {
    const { store, publisher, clock, limits, leafTtlMs, events } = this.#options;
    if (store.ledger.living >= limits.maxCertificates) {
      throw new Refusal('rate-limited', 'too many certificates live', { retryAfterMs: 60_000 });
    }
    const now = clock.now();
    const issuer = publisher.issuers.current;
    const revocation = store.ledger.lastRevocationOf(id);
    const leaf = await signLeaf(issuer, { id, publicKey, now, ttlMs: leafTtlMs });
    // Signing may take a while, and neither revocation nor a change of issuers waits for it.
    if (!publisher.issuers.all.some(({ id }) => id === issuer.id))
      throw new Refusal('unavailable', 'the issuer has changed');
    const isRevoked = how.by && store.ledger.isRevoked(how.by.serial);
    if (isRevoked || store.ledger.lastRevocationOf(id) !== revocation)
      throw new Refusal('revoked', 'the identity has been revoked');
    const { serial, notAfter } = leaf;
    const purpose = how.by ? 'renewal' : 'join-token';
    // On the disk, with the token that it costs, before anybody has it.
    await store.record(
      {
        fact: 'issued',
        serial,
        id,
        notAfter,
        issuer: issuer.id,
        ...(how.spent === undefined ? {} : { spent: how.spent }),
      },
      {
        what: 'issued',
        identity: id,
        serial,
        notAfter: new Date(notAfter).toISOString(),
        for: purpose,
        ...(how.by ? { by: how.by.serial } : {}),
        address: how.address,
      },
    );
    if (store.ledger.isRevoked(serial)) throw new Refusal('revoked', 'the identity has been revoked');
    events.emit('certificate-issued', { identity: id, serial, notAfter, purpose });
    return leaf;
  }

  /** The chain ends in a root of the domain; that one of our issuers signed it is still to be shown. */
  #requireIssuedHere(peer: PeerIdentity, leaf: X509Certificate): void {
    const { publisher, store } = this.#options;
    const issuer = publisher.issuers.all.find(
      ({ certificate }) => leaf.checkIssued(certificate) && leaf.verify(certificate.publicKey),
    );
    if (issuer === undefined) throw new Refusal('identity-refused', 'the certificate is not of this authority');
    if (store.ledger.certificate(peer.serial)) return;
    // A store that came back from a backup does not know it: then what was revoked is known by name and time only.
    const issuedAt = Date.parse(leaf.validFrom) + BACKDATE_MS;
    const second = 1000; // certificates hold no parts of it
    if (store.ledger.wasRevokedSince(peer.id, issuedAt - second))
      throw new Refusal('revoked', 'the identity has been revoked');
  }

  #meant(request: RevokeRequest): { readonly id: string; readonly serials: string[] } {
    const { store, publisher } = this.#options;
    if ('identity' in request) {
      const id = workloadId(request.identity, publisher.issuers.trustDomain);
      return { id, serials: store.ledger.serialsOf(id) };
    }
    const known = store.ledger.certificate(request.serial);
    if (known === undefined) throw new Refusal('identity-refused', 'no living certificate has that serial number');
    return { id: known.id, serials: store.ledger.isRevoked(known.serial) ? [] : [known.serial] };
  }

  #idOf(request: JoinTokenRequest): string {
    const { trustDomain } = this.#options.publisher.issuers;
    if ('id' in request) return workloadId(request.id, trustDomain);
    return parseIdentityTemplate(defaultIdentityTemplate).idFor(trustDomain, request.service).toString();
  }

  #limit(limiter: RateLimiter, key: string): void {
    const retryAfterMs = limiter.admit(key);
    if (retryAfterMs !== undefined) throw new Refusal('rate-limited', 'too many requests', { retryAfterMs });
  }
}

/** By what right a certificate is issued. */
interface How {
  readonly spent?: string;
  readonly by?: PeerIdentity;
  readonly address: string;
}

/** Nobody but the authority is the authority. */
function workloadId(text: string, trustDomain: string): string {
  let id: string;
  let domain: string;
  try {
    const parsed = parseWorkloadId(text);
    id = parsed.toString();
    domain = parsed.trustDomain;
  } catch (cause) {
    throw new Refusal('identity-refused', 'not a SPIFFE ID of a workload', { cause });
  }
  if (domain !== trustDomain) throw new Refusal('identity-refused', `not an identity of ${trustDomain}`);
  if (id === authorityId(trustDomain)) throw new Refusal('identity-refused', 'the identity of the authority itself');
  return id;
}

function acceptedKey(csrPem: string, id: string): KeyObject {
  try {
    const { publicKey, requested } = parseCsr(csrPem);
    refuseExcess(requested, id);
    return publicKey;
  } catch (cause) {
    if (!(cause instanceof PkiError)) throw cause;
    throw new Refusal('csr-refused', cause.message, { cause });
  }
}

/** A token has 256 random bits, so one round of a fast hash keeps it as secret as a slow one would. */
function hashOf(joinToken: string): string {
  return createHash('sha256').update(joinToken).digest('hex');
}
