import { createHash, randomBytes } from 'node:crypto';
import type { Principal } from '../handler.js';
import type { Grant } from './issuer.js';
import type { EndedSession } from './logout-token.js';

export interface SessionLimits {
  /** Longest life of a session, ms. */
  readonly sessionMs: number;
  /** Longest time without a request, ms. */
  readonly idleMs: number;
  readonly maxSessions: number;
}

/** An issuer that gives very short lives is not asked with every request. */
const MIN_LIFE_MS = 10_000;

/** Somebody who is logged in. */
export class Session {
  /** Until when, at the latest, ms since the epoch. */
  readonly endsAt: number;
  /** The issuer's name of its own session; undefined where it has none. */
  readonly sid: string | undefined;
  usedAt: number;
  /** The one refresh that is under way, for all requests that wait for it. */
  renewing: Promise<void> | undefined;
  readonly #ending = new AbortController();
  #principal: Principal;
  #idToken: string;
  #refreshToken: string | undefined;
  #renewAt = Number.POSITIVE_INFINITY;

  constructor(principal: Omit<Principal, 'expiresAt' | 'method'>, grant: Grant, now: number, lifeMs: number) {
    this.endsAt = now + lifeMs;
    this.usedAt = now;
    const { sid } = principal.claims;
    this.sid = typeof sid === 'string' ? sid : undefined;
    this.#idToken = grant.idToken ?? '';
    this.#principal = { ...principal, method: 'session', expiresAt: this.endsAt, withdrawn: this.#ending.signal };
    this.renew(grant, now);
  }

  get principal(): Principal {
    return this.#principal;
  }

  get idToken(): string {
    return this.#idToken;
  }

  get refreshToken(): string | undefined {
    return this.#refreshToken;
  }

  /** What was begun with it ends. */
  end(): void {
    this.#ending.abort();
  }

  /** Whether the issuer must be asked before the next request. */
  isStale(now: number): boolean {
    return this.#renewAt <= now;
  }

  /** What the issuer says takes the place of what it has said before; what it leaves out stays. */
  renew({ claims, idToken, scopes, refreshToken, lifeMs }: Grant, now: number): void {
    this.#idToken = idToken ?? this.#idToken;
    this.#refreshToken = refreshToken ?? this.#refreshToken;
    const isRenewable = this.#refreshToken !== undefined && lifeMs !== undefined;
    this.#renewAt = isRenewable ? now + Math.max(lifeMs, MIN_LIFE_MS) : Number.POSITIVE_INFINITY;
    this.#principal = {
      ...this.#principal,
      ...(claims ? { claims: Object.freeze({ ...claims }) } : {}),
      ...(scopes ? { scopes } : {}),
      expiresAt: Math.min(this.endsAt, this.#renewAt),
    };
  }
}

/** Who is logged in, by the hash of a random id: whoever reads the memory of the process cannot come with their cookies. */
export class Sessions {
  readonly #limits: SessionLimits;
  /** The least used first. */
  readonly #sessions = new Map<string, Session>();

  constructor(limits: SessionLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /**
   * A new id of 256 bits each time: none that somebody could have planted before the login. When there are too many, the least used
   * one of the same subject ends: nobody ends those of others by logging in again and again. Only where there is none it is
   * the least used of all.
   */
  begin(principal: Omit<Principal, 'expiresAt' | 'method'>, grant: Grant, now: number): string {
    const id = randomBytes(32).toString('base64url');
    const { sessionMs, maxSessions } = this.#limits;
    for (const [oldest, session] of this.#sessions) {
      if (!this.#isOver(session, now)) break;
      this.#end(oldest);
    }
    if (this.#sessions.size >= maxSessions) this.#end(this.#leastUsed(principal.subject));
    this.#sessions.set(hashOf(id), new Session(principal, grant, now, sessionMs));
    return id;
  }

  /** Of the subject where it has one. All sessions are of one issuer. */
  #leastUsed(subject: string): string {
    let first: string | undefined;
    for (const [key, session] of this.#sessions) {
      if (session.principal.subject === subject) return key;
      first ??= key;
    }
    return first ?? '';
  }

  find(id: string, now: number): Session | undefined {
    const key = hashOf(id);
    const session = this.#sessions.get(key);
    if (!session) return undefined;
    if (this.#isOver(session, now)) {
      this.#end(key);
      return undefined;
    }
    this.#sessions.delete(key);
    session.usedAt = now;
    this.#sessions.set(key, session);
    return session;
  }

  /** The session that has ended, where there was one. */
  end(id: string): Session | undefined {
    return this.#end(hashOf(id));
  }

  /** How many sessions the issuer has ended. */
  endAll({ sid, subject }: EndedSession): number {
    let ended = 0;
    for (const [key, session] of this.#sessions) {
      const isOfSubject = subject === undefined || session.principal.subject === subject;
      // Where the issuer has not named its session, the subject alone can tell.
      const isThatOne = session.sid === undefined ? subject !== undefined : sid === undefined || session.sid === sid;
      if (!isOfSubject || !isThatOne) continue;
      this.#end(key);
      ended++;
    }
    return ended;
  }

  has(id: string): boolean {
    return this.#sessions.has(hashOf(id));
  }

  #end(key: string): Session | undefined {
    const session = this.#sessions.get(key);
    this.#sessions.delete(key);
    session?.end();
    return session;
  }

  #isOver({ endsAt, usedAt }: Session, now: number): boolean {
    return endsAt <= now || usedAt + this.#limits.idleMs <= now;
  }
}

function hashOf(id: string): string {
  return createHash('sha256').update(id).digest('base64url');
}
