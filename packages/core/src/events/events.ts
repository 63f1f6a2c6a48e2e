import type { StatusName } from '../errors.js';
import type { Violation } from '../policy/violation.js';
import type { RegistryState } from '../registry/registry.js';
import type { ServiceState } from '../service/lifecycle.js';
import type { Suspension } from '../tls/source.js';

/** Why a peer was turned away at the door. Stable: dashboards and tests refer to it. */
export type HandshakeRefusal =
  | 'proxy-header' // a balancer did not begin with the PROXY header that it is declared to send
  | 'not-tls' // plaintext or garbage on the TLS port
  | 'tls-version' // no common protocol version
  | 'no-certificate'
  | 'untrusted-issuer' // self-signed, foreign CA, or a chain that OpenSSL does not accept
  | 'expired'
  | 'not-yet-valid'
  | 'revoked'
  | 'revocation-unknown' // a CRL is missing or past its time: fails closed
  | 'invalid-svid' // trusted chain, but the leaf breaks the X509-SVID rules
  | 'wrong-trust-domain' // no bundle for the domain, or another domain's CA signed it
  | 'alpn'
  | 'resumed' // a resumed session shows no certificate
  | 'timeout'
  | 'too-many-connections'
  | 'withdrawn' // our own identity may not be used any more
  | 'abuse' // a connection of this identity was closed for a flood a moment ago
  | 'aborted' // the peer hung up in mid-handshake
  | 'other';

/** What happened, by type. Every event also carries `type`, `at` (ms since the epoch) and `service`. */
export interface EventMap {
  // Security
  'handshake-refused': { reason: HandshakeRefusal; detail: string; remoteAddress: string; peer?: string };
  'server-identity-refused': {
    target: string;
    reason: HandshakeRefusal | 'wrong-identity';
    detail: string;
    address: string;
    presented?: string;
  };
  /** `peer` is the caller: a stranger, or this service itself where its rules for outgoing calls deny. */
  'call-denied': { peer: string; method: string; rule: string | undefined };
  'call-rejected': { peer: string; method: string; status: StatusName; detail: string };
  'connection-closed-by-policy': {
    peer: string;
    reason: 'revoked' | 'revocation-unknown' | 'expired' | 'withdrawn' | 'abuse';
    detail: string;
  };
  'registry-record-refused': { target: string; instance: string; detail: string };
  /** A credential that can do too much was let through, for the reason that the configuration gives. */
  'registry-credential-too-powerful': { registry: string; credential: string; detail: string; reason: string };
  /** Everything of this participant is registered with the new credential: the old one may be revoked. */
  'registry-credential-rotated': { registry: string; credential: string };
  'configuration-refused': { violations: readonly Violation[] };
  /** A gateway has ended a request before any service saw it, or could not answer it; a sidecar, one of its program. */
  'request-refused': {
    request: string;
    method: string;
    path: string;
    status: number;
    code: string;
    remoteAddress: string;
    detail: string;
    subject?: string;
  };
  /** What tokens are judged by, e.g. an issuer's keys: `stale` uses what was fetched last, `down` refuses. */
  'auth-source-state': { source: string; state: 'fresh' | 'stale' | 'down'; detail: string };
  /** A call claimed to be made for a user, and that was not to be believed. */
  'user-refused': { peer: string; method: string; detail: string };
  /** What counts requests for several gateways has gone, or has come back. */
  'rate-limit-store-state': { store: string; state: 'up' | 'down'; detail: string };
  /** A service behind the gateway gets no calls for a while (`open`), or gets them again. */
  'breaker-state': { upstream: string; state: 'open' | 'closed'; detail: string };
  // Certificates and rules
  rotated: { identity: string; serial: string; notAfter: number; generation: number };
  'rotation-failed': { detail: string };
  expiring: { identity: string; notAfter: number; remainingMs: number };
  /** A revocation list is not renewed. `remainingMs`: until `closesAt`, when nobody below that authority is let in or kept. */
  'revocation-stale': { authority: string; nextUpdate: number; closesAt: number; remainingMs: number };
  /** No connection is opened or kept until there is new material (`rotated`). */
  'identity-suspended': { identity: string; reason: Suspension['reason']; detail: string };
  'rules-reloaded': { file: string; rules: number };
  'rules-reload-failed': { file: string; detail: string };
  /** The rule names a method that its service does not have: it can never apply, which is probably a mistake. */
  'rule-without-method': { rule: string; method: string };
  // The authority as a service
  'certificate-issued': { identity: string; serial: string; notAfter: number; purpose: 'join-token' | 'renewal' };
  /** `code` as in the protocol of the authority. */
  'issuance-refused': { code: string; detail: string; remoteAddress: string; peer?: string };
  'certificates-revoked': { identity: string; serials: readonly string[]; reason: string; by: string };
  /** It cannot sign, write or publish now; what it published last stays. */
  'authority-degraded': { detail: string };
  // Configuration of a gateway, which has routes, or of a sidecar, which has upstreams
  'config-reloaded': { file: string; routes?: number; upstreams?: number };
  /** The last good configuration stays in force. */
  'config-reload-failed': { file: string; detail: string };
  // Lifecycle
  'service-state': { from: ServiceState; to: ServiceState };
  readiness: { ready: boolean; reasons: readonly string[] };
  /** `reason`: why it listens on every interface, as `allowWildcardBind` says. */
  listening: { address: string; reason?: string };
  /** A listening socket that was handed to the process has no part in the configuration, and was closed. */
  'socket-unclaimed': { socket: string };
  /** The next process of this program was started, serves on the same sockets, or could not be had. */
  handover: { state: 'started' | 'completed' | 'failed'; detail: string };
  /** The operating system gave no socket, e.g. EMFILE; accepting goes on. */
  'accept-failed': { detail: string };
  'instance-registered': { instance: string };
  'instance-deregistered': { instance: string };
  'registry-state': { registry: string; target: string; state: RegistryState; detail: string };
  /** Whether the program behind a sidecar can be reached. */
  'program-state': { target: string; state: 'up' | 'down'; detail: string };
  /** A connection or a request of the program beside a sidecar could not be carried on. */
  'upstream-unreachable': { upstream: string; detail: string };
  'handler-failed': { method: string; detail: string };
  'listener-failed': { event: string; detail: string };
}

export type EventType = keyof EventMap;
export type SallyportEvent<T extends EventType = EventType> = {
  [K in T]: Readonly<EventMap[K]> & { readonly type: K; readonly at: number; readonly service: string };
}[T];

/** Where the parts of the SDK report to. */
export interface EventSink {
  emit<T extends EventType>(type: T, fields: EventMap[T]): void;
}
