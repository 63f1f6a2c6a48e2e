import type { Clock } from '../clock.js';
import type { EventSink } from '../events/events.js';
import type { Violation } from '../policy/violation.js';
import type { TlsHandle } from '../tls/source.js';

export interface Endpoint {
  /** IP address or host name, never empty, never a wildcard. */
  readonly host: string;
  /** 1 to 65535. */
  readonly port: number;
}

export type InstanceState = 'starting' | 'ready' | 'draining';

/** What the registry holds of one running instance. Data from outside: trust comes from the mTLS identity, never from here. */
export interface InstanceRecord {
  /** Unique for ever: `<service>-<uuid>`. */
  readonly id: string;
  readonly service: string;
  /** Semantic version. */
  readonly version: string;
  readonly endpoints: readonly Endpoint[];
  /** SPIFFE ID that the instance says it has. Informative: the client expects the id of the service, not this. */
  readonly identity: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Share of the calls relative to the others, a whole number from 0 to 1000, default 100; 0 takes none. */
  readonly weight: number;
  /** Failure domain, e.g. an availability zone; empty when not used. */
  readonly zone: string;
  readonly state: InstanceState;
  /** Names of the contracts it serves. */
  readonly contracts: readonly string[];
}

/** fresh: in contact; stale: last known good; down: no contact and nothing known. */
export type RegistryState = 'fresh' | 'stale' | 'down';

export type RegistryEvent =
  /** The complete set; replaces whatever was known. Always the first event of a watch, and again after a gap. */
  | { readonly type: 'snapshot'; readonly instances: readonly InstanceRecord[] }
  | { readonly type: 'added' | 'changed'; readonly instance: InstanceRecord }
  | { readonly type: 'removed'; readonly id: string }
  /** Contact was lost or found again. A watch is fresh until it says otherwise. */
  | { readonly type: 'state'; readonly state: RegistryState; readonly detail: string };

/** One participant's connection to the registry. */
export interface RegistrySession {
  /**
   * Publishes the record and keeps it alive until `deregister` or `close`. Rejects with ALREADY_EXISTS (CallError) when
   * another participant owns the id, with INVALID_ARGUMENT when the record is not valid.
   */
  register(record: InstanceRecord): Promise<void>;
  /** Replaces the own record of the same id; NOT_FOUND when this session has not registered it. */
  update(record: InstanceRecord): Promise<void>;
  /** Withdraws the own record; harmless when it is gone already. */
  deregister(id: string): Promise<void>;
  /** The current instances of a service, in any state, ordered by id. Rejects with INVALID_ARGUMENT for no valid name. */
  list(service: string, options?: { signal?: AbortSignal }): Promise<readonly InstanceRecord[]>;
  /**
   * A snapshot, then every change. Ends when the signal aborts or the session closes; never loses a change: a slow
   * reader gets a new snapshot instead of an unbounded queue. Throws INVALID_ARGUMENT when the name is not valid.
   */
  watch(service: string, options?: { signal?: AbortSignal }): AsyncIterable<RegistryEvent>;
  /** Contact with the registry itself. */
  readonly state: RegistryState;
  /** Withdraws what is still registered and releases everything; twice is harmless. */
  close(): Promise<void>;
}

export interface RegistryContext {
  /** Name of the service that opens the session. */
  readonly service: string;
  readonly events: EventSink;
  readonly clock: Clock;
  /** The workload's identity, for registries that authenticate by certificate. */
  readonly tls: TlsHandle;
}

/** Where instances are published and found. One registry may be given to several services: each opens a session. */
export interface Registry {
  /** `memory`, `local`, `consul`, `etcd` … */
  readonly kind: string;
  /** `machine`: all participants are on this machine, so loopback addresses are to be expected. */
  readonly reach: 'machine' | 'network';
  check(): Promise<readonly Violation[]>;
  open(context: RegistryContext): Promise<RegistrySession>;
}
