import { InsecureConfigurationError } from '@sallyport/core';
import {
  Backoff,
  type Clock,
  type MaterialHolder,
  type PemMaterial,
  type TlsContext,
  type TlsHandle,
  type TlsMaterial,
  type TlsSource,
  type Violation,
} from '@sallyport/core/spi';
import { PkiError } from '../errors.js';
import { FailureReport } from './failure-report.js';
import { KeptMaterial } from './kept-material.js';
import { RenewalLoop } from './renewal.js';

/** Any time that a timer can wait. */
const ALIVE_MS = 60_000;

/** Where certificates come from, for as long as a source is open. */
export interface Issuer {
  /**
   * A certificate for a new key, and whom to trust. `current` is what serves, expired or not; undefined the first time.
   * Rejects with a `PkiError`, `issuer-unavailable` if it may succeed later. Must settle soon after `signal` has aborted.
   */
  obtain(current: TlsMaterial | undefined, signal: AbortSignal): Promise<PemMaterial>;
  /** Why a valid certificate must not be used, e.g. because its identity was not asked for. Left out: nothing more. */
  objection?(material: TlsMaterial): string | undefined;
  /** Follows what changes between renewals until `signal` aborts; must not reject. Left out: nothing does. */
  follow?(kept: FollowedMaterial, signal: AbortSignal): Promise<void>;
}

/** What an issuer may do with the material that serves. */
export interface FollowedMaterial {
  readonly current: () => TlsMaterial;
  /** See `KeptMaterial`. */
  readonly trusted: KeptMaterial['trusted'];
  /** Tells of what went wrong, once for each problem. */
  readonly report: FailureReport;
  /** Does not wait for the time to come. */
  readonly renewNow: () => void;
}

export interface RenewingSourceOptions {
  readonly kind: string;
  /** Everything that is wrong with the options. Asks for no certificate. */
  readonly check: () => Promise<readonly Violation[]>;
  /** Called for each first `open`, if `check` has found nothing. */
  readonly issuer: (clock: Clock) => Issuer | Promise<Issuer>;
  /** How long the first certificate is tried to get while the issuer is unavailable, ms. */
  readonly startTimeoutMs: number;
  /** How long revocation lists count after their time, ms. Left out: not at all. */
  readonly revocationGraceMs?: number | undefined;
}

/**
 * A source whose certificates are issued over the network to keys that are made here, and renewed for as long as somebody
 * uses them. One set of renewals serves all handles; the next `open` after the last `close` begins anew.
 */
export class RenewingSource implements TlsSource {
  readonly kind: string;
  readonly #options: RenewingSourceOptions;
  #running: Promise<MaterialHolder> | undefined;

  constructor(options: RenewingSourceOptions) {
    this.kind = options.kind;
    this.#options = options;
  }

  check(): Promise<readonly Violation[]> {
    return this.#options.check();
  }

  /** Rejects with InsecureConfigurationError, or with a `PkiError` if there is no first certificate to be had. */
  async open(context: TlsContext): Promise<TlsHandle> {
    this.#running ??= this.#begin(context.clock);
    const running = this.#running;
    try {
      const holder = await running;
      // While this one waited the last handle may have been closed, and the renewals with it.
      return this.#running === running ? holder.open(context) : await this.open(context);
    } catch (error) {
      if (this.#running === running) this.#running = undefined;
      throw error;
    }
  }

  async #begin(clock: Clock): Promise<MaterialHolder> {
    const violations = await this.check();
    if (violations.length > 0) throw new InsecureConfigurationError('tls', violations);
    const issuer = await this.#options.issuer(clock);
    const first = await this.#firstOf(issuer, clock);
    const closing = new AbortController();
    const kept = new KeptMaterial(first, {
      clock,
      revocationGraceMs: this.#options.revocationGraceMs ?? 0,
      objection: (material) => issuer.objection?.(material),
      onLastClose: () => {
        this.#running = undefined;
        closing.abort();
      },
    });
    keepAlive(kept, issuer, clock, closing.signal);
    return kept.holder;
  }

  /** An issuer that is away for a moment is no reason not to start. */
  async #firstOf(issuer: Issuer, clock: Clock): Promise<PemMaterial> {
    const deadline = new AbortController();
    const timer = clock.after(this.#options.startTimeoutMs, () => deadline.abort());
    const backoff = new Backoff({ clock, firstMs: 250 });
    // Nothing else may keep a process alive that still waits for its identity: it would end without a word.
    const alive = setInterval(() => undefined, ALIVE_MS);
    let reason: unknown;
    try {
      for (;;) {
        try {
          return await issuer.obtain(undefined, deadline.signal);
        } catch (error) {
          // An attempt that the deadline ended says nothing; the one before it does.
          if (deadline.signal.aborted) throw reason ?? error;
          reason = error;
          const mayPass = error instanceof PkiError && error.code === 'issuer-unavailable';
          if (!mayPass) throw error;
          await backoff.wait(deadline.signal);
          if (deadline.signal.aborted) throw error;
        }
      }
    } finally {
      timer.cancel();
      clearInterval(alive);
    }
  }
}

/** Renews and follows until the signal aborts. */
function keepAlive(kept: KeptMaterial, issuer: Issuer, clock: Clock, signal: AbortSignal): void {
  const current = () => kept.holder.current;
  const renewals = new FailureReport(kept.holder);
  const loop = new RenewalLoop({
    clock,
    current,
    signal,
    onFailure: (error) => renewals.failed(error),
    async renew() {
      const pem = await issuer.obtain(current(), signal);
      if (signal.aborted) return;
      kept.renewed(pem);
      renewals.overcome();
    },
  });
  void issuer.follow?.(
    {
      current,
      trusted: (trust) => kept.trusted(trust),
      report: new FailureReport(kept.holder),
      renewNow: () => loop.renewNow(),
    },
    signal,
  );
}
