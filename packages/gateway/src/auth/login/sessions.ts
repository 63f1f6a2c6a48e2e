import { createHash, randomBytes } from 'node:crypto';
import type { Principal } from '../handler.js';

export interface SessionLimits {
  /** Longest life of a session, ms. */
  readonly sessionMs: number;
  /** Longest time without a request, ms. */
  readonly idleMs: number;
  readonly maxSessions: number;
}

interface Session {
  readonly principal: Principal;
  usedAt: number;
}

/** Who is logged in, by the hash of a random id: whoever reads the memory of the process cannot act for anybody. */
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

  /** A new id of 256 bits each time: none that somebody could have planted before the login. Forgets the least used when full. */
  begin(principal: Omit<Principal, 'expiresAt' | 'method'>, now: number): string {
    const id = randomBytes(32).toString('base64url');
    const expiresAt = now + this.#limits.sessionMs;
    this.#sessions.set(hashOf(id), { principal: { ...principal, expiresAt, method: 'session' }, usedAt: now });
    for (const oldest of this.#sessions.keys()) {
      if (this.#sessions.size <= this.#limits.maxSessions) break;
      this.#sessions.delete(oldest);
    }
    return id;
  }

  find(id: string, now: number): Principal | undefined {
    const key = hashOf(id);
    const session = this.#sessions.get(key);
    if (!session) return undefined;
    this.#sessions.delete(key);
    if (session.principal.expiresAt <= now || session.usedAt + this.#limits.idleMs <= now) return undefined;
    session.usedAt = now;
    this.#sessions.set(key, session);
    return session.principal;
  }

  end(id: string): void {
    this.#sessions.delete(hashOf(id));
  }
}

function hashOf(id: string): string {
  return createHash('sha256').update(id).digest('base64url');
}
