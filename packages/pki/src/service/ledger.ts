import { z } from 'zod';
import { revocationReasonSchema } from './protocol.js';

const serial = z.string();
const id = z.string();
/** Ms since the epoch. */
const instant = z.number();

/** One fact. Applied twice, or again in the same order, it changes nothing: a journal may repeat what a snapshot holds. */
export const factSchema = z.discriminatedUnion('fact', [
  z.object({ fact: z.literal('join-token'), hash: z.string(), id, expiresAt: instant }),
  z.object({
    fact: z.literal('issued'),
    serial,
    id,
    notAfter: instant,
    /** Which certificate signed it: `issuerKeyOf`. */
    issuer: z.string(),
    /** The join token that was spent on it. */
    spent: z.string().optional(),
  }),
  z.object({ fact: z.literal('revoked'), serial, at: instant, reason: revocationReasonSchema.optional() }),
  /** All that was issued to the identity before `at`, known here or not. Forgotten after `until`. */
  z.object({ fact: z.literal('identity-revoked'), id, at: instant, until: instant }),
  /** `past`: up to when the store had forgotten by then. */
  z.object({ fact: z.literal('list-numbered'), number: z.int(), past: instant.optional() }),
]);

export type Fact = z.output<typeof factSchema>;
export type RevocationFact = Extract<Fact, { fact: 'revoked' }>;

export interface Certificate {
  readonly serial: string;
  readonly id: string;
  readonly notAfter: number;
  readonly issuer: string;
}

export interface RevokedCertificate extends Certificate {
  readonly at: number;
  readonly reason: RevocationFact['reason'];
}

interface Entry extends Certificate {
  revoked: { readonly at: number; readonly reason: RevocationFact['reason'] } | undefined;
}

/** A revoked certificate stays on the lists for that long after its end, for verifiers whose clocks run late (RFC 5280 section 3.3). */
const AFTERLIFE_MS = 3_600_000;

/** What the authority knows, in memory: the sum of its facts. */
export class Ledger {
  readonly #tokens = new Map<string, { readonly id: string; readonly expiresAt: number }>();
  readonly #certificates = new Map<string, Entry>();
  readonly #serialsOf = new Map<string, Set<string>>();
  readonly #revoked = new Set<Entry>();
  readonly #revokedIds = new Map<string, { readonly at: number; readonly until: number }>();
  #listNumber = 0;
  #past: number | undefined;
  #lastReading = 0;
  #ended = 0;

  get tokens(): number {
    return this.#tokens.size;
  }

  get certificates(): number {
    return this.#certificates.size;
  }

  /** Of the certificates, those that had not ended when `prune` looked last. */
  get living(): number {
    return this.#certificates.size - this.#ended;
  }

  get listNumber(): number {
    return this.#listNumber;
  }

  /** Up to when it has forgotten, ms since the epoch; undefined: no fact tells. */
  get past(): number | undefined {
    return this.#past;
  }

  /** The latest reading of the clock that a fact holds, ms since the epoch; undefined: none holds any. */
  get lastReading(): number | undefined {
    return this.#lastReading === 0 ? undefined : this.#lastReading;
  }

  /** When the last of what it knows now may be forgotten, ms since the epoch. */
  get lastEnd(): number {
    let end = 0;
    for (const { expiresAt } of this.#tokens.values()) end = Math.max(end, expiresAt);
    for (const { until } of this.#revokedIds.values()) end = Math.max(end, until);
    for (const { notAfter } of this.#certificates.values()) end = Math.max(end, notAfter + AFTERLIFE_MS);
    return end;
  }

  apply(fact: Fact): void {
    switch (fact.fact) {
      case 'join-token':
        this.#tokens.set(fact.hash, { id: fact.id, expiresAt: fact.expiresAt });
        return;
      case 'issued':
        if (fact.spent !== undefined) this.#tokens.delete(fact.spent);
        this.#add(fact);
        return;
      case 'revoked':
        this.#revoke(fact);
        this.#lastReading = Math.max(this.#lastReading, fact.at);
        return;
      case 'identity-revoked':
        this.#lastReading = Math.max(this.#lastReading, fact.at);
        this.#revokedIds.set(fact.id, { at: fact.at, until: fact.until });
        for (const [hash, token] of this.#tokens) if (token.id === fact.id) this.#tokens.delete(hash);
        return;
      case 'list-numbered':
        this.#listNumber = Math.max(this.#listNumber, fact.number);
        // A list is numbered by the clock, in ms.
        this.#lastReading = Math.max(this.#lastReading, fact.number);
        this.#past = fact.past ?? this.#past;
    }
  }

  /** Facts that sum up to the same. */
  *facts(): Generator<Fact> {
    const past = this.#past === undefined ? {} : { past: this.#past };
    yield { fact: 'list-numbered', number: this.#listNumber, ...past };
    for (const [id, { at, until }] of this.#revokedIds) yield { fact: 'identity-revoked', id, at, until };
    for (const [hash, { id, expiresAt }] of this.#tokens) yield { fact: 'join-token', hash, id, expiresAt };
    for (const { serial, id, notAfter, issuer, revoked } of this.#certificates.values()) {
      yield { fact: 'issued', serial, id, notAfter, issuer };
      if (revoked) yield { fact: 'revoked', serial, ...revoked };
    }
  }

  /** Takes the token out, so that nobody else gets it; `giveBack` undoes that. Undefined: unknown, expired or taken. */
  take(hash: string, now: number): { readonly id: string; readonly giveBack: () => void } | undefined {
    const token = this.#tokens.get(hash);
    if (token === undefined || token.expiresAt <= now) return undefined;
    this.#tokens.delete(hash);
    const revocation = this.lastRevocationOf(token.id);
    return {
      id: token.id,
      // Unless it was voided meanwhile, with its identity.
      giveBack: () => {
        if (this.lastRevocationOf(token.id) === revocation) this.#tokens.set(hash, token);
      },
    };
  }

  certificate(serial: string): Certificate | undefined {
    return this.#certificates.get(serial);
  }

  /** Serials that live and are not revoked. */
  serialsOf(id: string): string[] {
    return [...(this.#serialsOf.get(id) ?? [])].filter((serial) => !this.isRevoked(serial));
  }

  isRevoked(serial: string): boolean {
    return this.#certificates.get(serial)?.revoked !== undefined;
  }

  /** Another one than before: everything of the identity was revoked since, wherever the clock was meanwhile. */
  lastRevocationOf(id: string): object | undefined {
    return this.#revokedIds.get(id);
  }

  /** Whether everything of the identity was revoked at `since` or later. */
  wasRevokedSince(id: string, since: number): boolean {
    return (this.#revokedIds.get(id)?.at ?? Number.NEGATIVE_INFINITY) >= since;
  }

  /** Those that `issuer` has signed. */
  revokedBy(issuer: string): RevokedCertificate[] {
    return [...this.#revoked].flatMap(({ revoked, ...certificate }) =>
      revoked && certificate.issuer === issuer ? [{ ...certificate, ...revoked }] : [],
    );
  }

  /** When the last certificate of each issuer ends that has not ended yet and is not revoked, by issuer. */
  livingUntil(now: number): ReadonlyMap<string, number> {
    const ends = new Map<string, number>();
    for (const { issuer, notAfter, revoked } of this.#certificates.values()) {
      if (notAfter > now && !revoked) ends.set(issuer, Math.max(notAfter, ends.get(issuer) ?? 0));
    }
    return ends;
  }

  /** Forgets what was over at `past`, which may lie behind the clock. */
  prune(past: number, now = past): void {
    this.#past = past;
    this.#ended = 0;
    for (const [hash, { expiresAt }] of this.#tokens) if (expiresAt <= past) this.#tokens.delete(hash);
    for (const [id, { until }] of this.#revokedIds) if (until <= past) this.#revokedIds.delete(id);
    for (const entry of this.#certificates.values()) {
      if (entry.notAfter + (entry.revoked ? AFTERLIFE_MS : 0) <= past) this.#forget(entry);
      else if (entry.notAfter <= now) this.#ended++;
    }
  }

  #add({ serial, id, notAfter, issuer }: Certificate): void {
    if (this.#certificates.has(serial)) return;
    this.#certificates.set(serial, { serial, id, notAfter, issuer, revoked: undefined });
    const serials = this.#serialsOf.get(id) ?? new Set();
    serials.add(serial);
    this.#serialsOf.set(id, serials);
  }

  #revoke({ serial, at, reason }: RevocationFact): void {
    const entry = this.#certificates.get(serial);
    if (entry === undefined || entry.revoked) return;
    entry.revoked = { at, reason };
    this.#revoked.add(entry);
  }

  #forget(entry: Entry): void {
    this.#certificates.delete(entry.serial);
    this.#revoked.delete(entry);
    const serials = this.#serialsOf.get(entry.id);
    serials?.delete(entry.serial);
    if (serials?.size === 0) this.#serialsOf.delete(entry.id);
  }
}
