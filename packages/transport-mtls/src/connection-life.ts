/** A certificate, as far as the life of a connection depends on it. */
interface Ending {
  /** Ms since the epoch. */
  readonly notAfter: number;
}

export interface ConnectionLife {
  /** When the first of the certificates it was opened with ends; ms since the epoch. */
  readonly endsAt: number;
  /** When it takes no more calls, so that the running ones have ended by then. */
  readonly drainAt: number;
}

/**
 * How long a connection may live that was opened with these certificates, the own one and that of the peer: neither is of use
 * after its end, whatever is still running. The last calls have the grace, or half of the time if that is shorter.
 */
export function lifeOf(certificates: readonly Ending[], graceMs: number, now: number): ConnectionLife {
  const endsAt = Math.min(...certificates.map(({ notAfter }) => notAfter));
  return { endsAt, drainAt: endsAt - Math.min(graceMs, Math.max(0, endsAt - now) / 2) };
}

/**
 * Up to a tenth less, so that peers which came together do not come back together. In whole hundredths: Node keeps a list
 * for every length of timer until it would have fired, even when the timer was cancelled, and each connection would leave one.
 */
export function spread(ms: number): number {
  return Math.ceil(ms * (1 - Math.floor(Math.random() * 11) / 100));
}

/** Rounded down to seconds, and to 50 ms where seconds are much: for the same reason. */
export function coarse(ms: number): number {
  const unit = ms > 10_000 ? 1000 : 50;
  return Math.max(1, Math.floor(ms / unit) * unit);
}
