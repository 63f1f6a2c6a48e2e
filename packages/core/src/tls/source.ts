import type { X509Certificate } from 'node:crypto';
import type { Clock } from '../clock.js';
import type { EventSink } from '../events/events.js';
import type { SpiffeId } from '../identity/spiffe-id.js';
import type { Violation } from '../policy/violation.js';
import type { RevocationList } from './revocation.js';

/** One complete, validated set of TLS material: a new one replaces it as a whole, never in parts. */
export interface TlsMaterial {
  /** Grows by one with every change of the source. */
  readonly generation: number;
  readonly identity: SpiffeId;
  readonly leaf: X509Certificate;
  /** PEM, leaf first, then intermediates. */
  readonly certificateChain: string;
  /** PKCS#8 or SEC1 PEM; a function, so that it shows in no inspection and no JSON. */
  readonly privateKey: () => string;
  /** Validity of the leaf, ms since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Trust anchors by trust domain name; never merged across domains. Always holds the own domain. */
  readonly bundles: ReadonlyMap<string, readonly X509Certificate[]>;
  /**
   * For OpenSSL: PEM, one CRL an entry. Empty when revocation lists are not used, and in the grace of one that is past its time:
   * OpenSSL knows no grace, so `verifyPeer` alone goes by the lists then.
   */
  readonly crls: readonly string[];
  /** The revocation lists in use; empty when none are used. */
  readonly lists: readonly RevocationList[];
  /** Serials revoked by those lists: `<issuer name hash>/<serial>`, see revocation.ts. */
  readonly revoked: ReadonlySet<string>;
}

export interface TlsContext {
  readonly events: EventSink;
  readonly clock: Clock;
}

/** Why no connection may be opened or kept, whatever the material. */
export interface Suspension {
  /** Whoever issues the identity took it back. */
  readonly reason: 'withdrawn';
  readonly detail: string;
}

/** The open source: holds the current material and follows it. */
export interface TlsHandle {
  /** While suspended the last material: nothing may use it. */
  current(): TlsMaterial;
  /** Set: refuse every handshake and end what is open. New material lifts it. */
  readonly suspended: Suspension | undefined;
  /**
   * Called with the material after each swap, when it is suspended, and when a revocation list has run out: judge what is open
   * anew (`revocationProblem`). Returns the function that unsubscribes.
   */
  onChange(listener: (material: TlsMaterial) => void): () => void;
  /** Releases watchers and timers of this handle; twice is harmless. */
  close(): void;
}

/**
 * Where a workload's certificate, key and trust bundles come from. One source may serve several services: each opens
 * its own handle, and the source follows its files (or its authority) once.
 */
export interface TlsSource {
  readonly kind: string;
  /** Everything that is wrong with the options or the material; empty when `open` will succeed. Keeps nothing open. */
  check(): Promise<readonly Violation[]>;
  /** Throws InsecureConfigurationError where `check` finds violations. */
  open(context: TlsContext): Promise<TlsHandle>;
}
