/** What a peer may spend at once. */
const BURST = 1000;
/** What time gives back. */
const PER_SECOND = 50;

/**
 * Counts what a peer makes us do without a call to show for it: PING, SETTINGS, WINDOW_UPDATE, RST_STREAM, DATA that carries
 * nothing, frames for streams that are over (CVE-2019-9511 to -9518, CVE-2023-44487). Work that calls explain is paid for by
 * them; the rest is allowed at a low rate, with a burst.
 */
export class NuisanceBudget {
  #left = BURST;
  #refilledAt = Date.now();

  /** True while there is some left. */
  spend(cost: number): boolean {
    this.#left -= cost;
    return this.#left > 0 || this.#refill();
  }

  /** A call or a message that went its way pays for the frames around it. */
  earn(amount: number): void {
    this.#left = Math.min(BURST, this.#left + amount);
  }

  #refill(): boolean {
    const now = Date.now();
    this.earn(((now - this.#refilledAt) / 1000) * PER_SECOND);
    this.#refilledAt = now;
    return this.#left > 0;
  }
}
