interface Seen {
  readonly thumbprint: string;
  /** Ms since the epoch. */
  readonly until: number;
}

/** Proofs that were used, so that none is good twice. All are remembered equally long, in the order of their arrival. */
export class SeenProofs {
  readonly #max: number;
  readonly #maxPerKey: number;
  readonly #seen = new Map<string, Seen>();
  readonly #perKey = new Map<string, number>();

  /** One key alone must not take the room of all others. */
  constructor(max: number, maxPerKey: number) {
    this.#max = max;
    this.#maxPerKey = maxPerKey;
  }

  /**
   * Remembers it `until` then, ms since the epoch. `used`: it was remembered already. `full`: it cannot be remembered, and must not
   * be taken, for it could come again.
   */
  add(id: string, thumbprint: string, until: number, now: number): 'new' | 'used' | 'full' {
    this.#forget(now);
    if (this.#seen.has(id)) return 'used';
    const ofKey = this.#perKey.get(thumbprint) ?? 0;
    if (this.#seen.size >= this.#max || ofKey >= this.#maxPerKey) return 'full';
    this.#seen.set(id, { thumbprint, until });
    this.#perKey.set(thumbprint, ofKey + 1);
    return 'new';
  }

  #forget(now: number): void {
    for (const [id, { thumbprint, until }] of this.#seen) {
      if (until > now) break;
      this.#seen.delete(id);
      const left = (this.#perKey.get(thumbprint) ?? 1) - 1;
      if (left > 0) this.#perKey.set(thumbprint, left);
      else this.#perKey.delete(thumbprint);
    }
  }
}
