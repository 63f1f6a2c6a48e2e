import type { X509Certificate } from 'node:crypto';

/**
 * A request as the edge guard let it through, whatever HTTP version it came by: one spelling of its path, no header twice
 * where one is meant, nothing in it that claims to come from the gateway. Handlers and routes see nothing else of it.
 */
export interface EdgeRequest {
  /** Correlation id: the caller's `traceparent` trace id where that is valid, else a new one. */
  readonly id: string;
  readonly method: string;
  /** Canonical path (RFC 3986 section 6.2.2), without the query. */
  readonly path: string;
  readonly query: ReadonlyMap<string, readonly string[]>;
  /** Parameters of the route, decoded: `:id`. */
  readonly params: Readonly<Record<string, string>>;
  /** By lower-case name. Headers that may be repeated are joined with `, ` (RFC 9110 section 5.3). */
  readonly headers: Readonly<Record<string, string>>;
  /** `https://shop.example`: scheme, host and port as the client asked for them; one of the gateway's own hosts. */
  readonly origin: string;
  /** The client's address: behind declared trusted proxies the one that they report. */
  readonly remoteAddress: string;
  /** Verified by the listener against the client CA; undefined where the client presented none. */
  readonly clientCertificate: X509Certificate | undefined;
  /** Aborted when the client is gone or the request's time is over. */
  readonly signal: AbortSignal;
}
