import { Backoff, type Clock, type TlsMaterial } from '@sallyport/core/spi';
import type { Update } from '../../service/protocol.js';
import { Deadline } from '../deadline.js';
import { leavesIssuerOut } from '../kept-material.js';
import type { FollowedMaterial } from '../renewing-source.js';

/** A stream that is back after so many attempts is nothing to complain of. */
const QUIET_ATTEMPTS = 3;

export interface TrustFollowerOptions {
  readonly clock: Clock;
  /** How long one stream lives, ms: each begins with the complete state, so that a change which was missed is found then. */
  readonly pollMs: number;
  readonly updates: (current: TlsMaterial, signal: AbortSignal) => AsyncIterable<Update>;
}

/** Watches *and* polls: puts bundle and lists in place as the authority announces them, until `signal` aborts. Never rejects. */
export async function followTrust(
  kept: FollowedMaterial,
  { clock, pollMs, updates }: TrustFollowerOptions,
  signal: AbortSignal,
): Promise<void> {
  const backoff = new Backoff({ clock, firstMs: 200 });
  let failures = 0;
  while (!signal.aborted) {
    const current = kept.current();
    // With the certificate its connection ends as well; one that has expired opens none.
    const lifeMs = Math.min(pollMs, current.notAfter - clock.now());
    if (lifeMs <= 0) {
      await backoff.wait(signal);
      continue;
    }
    const poll = new Deadline(signal, clock, lifeMs);
    try {
      for await (const update of updates(current, poll.signal)) {
        failures = 0;
        backoff.reset();
        if (update.kind === 'state') apply(kept, update);
      }
    } catch (error) {
      failures = poll.signal.aborted ? 0 : failures + 1;
      if (failures > QUIET_ATTEMPTS) kept.report.failed(error);
    } finally {
      poll.end();
    }
    if (!poll.passed) await backoff.wait(signal);
  }
}

function apply(kept: FollowedMaterial, { bundle, crls }: Extract<Update, { kind: 'state' }>): void {
  try {
    kept.trusted({ ca: bundle, bundles: {}, crl: crls });
    kept.report.overcome();
  } catch (error) {
    kept.report.failed(error);
    // It would take over with a certificate of an authority that it holds.
    if (leavesIssuerOut(error)) kept.renewNow();
  }
}
