import { type Clock, every, type Timer } from '../clock.js';
import type { EventSink } from '../events/events.js';
import type { RegistrySession } from '../registry/registry.js';
import { authorityName } from '../tls/revocation.js';
import type { TlsHandle } from '../tls/source.js';
import type { ServiceState } from './lifecycle.js';

const CHECK_MS = 1000;

export interface Readiness {
  readonly ready: boolean;
  /** Why not; empty when ready. */
  readonly reasons: readonly string[];
}

export interface ReadinessSubjects {
  readonly state: () => ServiceState;
  readonly registry: () => RegistrySession | undefined;
  readonly tls: () => TlsHandle | undefined;
}

/** Whether the service should get traffic: it runs, the registry knows it, its certificate is valid. Tells of each change. */
export class ReadinessMonitor {
  readonly #subjects: ReadinessSubjects;
  readonly #events: EventSink;
  readonly #clock: Clock;
  #timer: Timer | undefined;
  #told: string | undefined;

  constructor(subjects: ReadinessSubjects, events: EventSink, clock: Clock) {
    this.#subjects = subjects;
    this.#events = events;
    this.#clock = clock;
  }

  current(): Readiness {
    const reasons: string[] = [];
    const state = this.#subjects.state();
    if (state !== 'ready') reasons.push(`the service is ${state}`);
    if (this.#subjects.registry()?.state === 'down') reasons.push('the registry is down');
    const tls = this.#subjects.tls();
    if (tls) reasons.push(...identityProblems(tls, this.#clock.now()));
    return { ready: reasons.length === 0, reasons };
  }

  start(): void {
    this.tell();
    this.#timer = every(this.#clock, CHECK_MS, () => this.tell());
  }

  /** Raises `readiness` when the answer has changed. */
  tell(): void {
    const { ready, reasons } = this.current();
    const answer = reasons.join(';');
    if (answer === this.#told) return;
    this.#told = answer;
    this.#events.emit('readiness', { ready, reasons });
  }

  stop(): void {
    this.#timer?.cancel();
  }
}

/**
 * Why nobody would accept this identity, or could be accepted with it; empty when all is well. A list of another trust domain keeps
 * out its peers; one of the own authorities keeps out everybody who calls us.
 */
export function identityProblems(tls: TlsHandle, now: number): string[] {
  const { notAfter, lists } = tls.current();
  const problems: string[] = [];
  if (notAfter <= now) problems.push('the certificate has expired');
  if (tls.suspended) problems.push(`the identity is not used: ${tls.suspended.detail}`);
  for (const list of lists) {
    if (list.own && list.closesAt <= now) problems.push(`the revocation list of ${authorityName(list)} has run out`);
  }
  return problems;
}
