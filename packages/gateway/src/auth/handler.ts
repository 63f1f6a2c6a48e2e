import type { Clock, EventSink, Violation } from '@sallyport/core/spi';
import type { EdgeRequest } from '../edge-request.js';

/** Who makes a request, proven. */
export interface Principal {
  /** Unique within the issuer: the `sub` of a token, the id of an API key, the SPIFFE ID or subject of a certificate. */
  readonly subject: string;
  /** Who vouches for it: the `iss` of a token, the name of the key store, the client CA. */
  readonly issuer: string;
  readonly scopes: ReadonlySet<string>;
  /** Verified claims; a claim that the credential does not hold is absent, never empty. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** End of the proof, ms since the epoch; nothing derived from it may live longer. */
  readonly expiresAt: number;
  /** Aborted when the proof is taken back before that, e.g. by a logout: streams that began with it end. Left out: it never is. */
  readonly withdrawn?: AbortSignal;
  /** Which handler proved it: `jwt`, `introspection`, `client-certificate`, `api-key`, `session`, or the custom name. */
  readonly method: string;
}

export type AuthResult =
  | {
      readonly outcome: 'authenticated';
      readonly principal: Principal;
      /** Stand on the answer. Lower-case names. */
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** The request holds no credential of this kind: another handler of an `anyOf` may have more luck. */
  | { readonly outcome: 'absent' }
  /** There is a credential, and it is not good. `reason` goes to the events, not to the client. */
  | {
      readonly outcome: 'refused';
      /** 400 for a malformed or repeated credential, 401 for one that proves nothing, 503 when the judge cannot be asked. */
      readonly status: 400 | 401 | 503;
      /** `error` of RFC 6750 section 3.1, e.g. `invalid_token`; stands in the challenge. */
      readonly error?: string;
      readonly reason: string;
      /** In place of those of the handler, where the way it was presented is clear. */
      readonly challenges?: readonly string[];
      /** Stand on the answer. Lower-case names. */
      readonly headers?: Readonly<Record<string, string>>;
    };

export interface AuthContext {
  readonly events: EventSink;
  readonly clock: Clock;
}

/** The open handler: may hold key sets, caches and connections. */
export interface Authenticator {
  /** At once where nobody has to be asked: most requests come with what is known already. */
  authenticate(request: EdgeRequest): Promise<AuthResult> | AuthResult;
  /** For `WWW-Authenticate` (RFC 9110 section 11.6.1): `Bearer`, `DPoP algs="ES256"`. */
  readonly challenges: readonly string[];
  /** Releases everything; twice is harmless. */
  close(): Promise<void>;
}

/** Made by `jwt({...})`, `apiKey(...)` and their siblings. One handler may serve many routes; it is opened once a gateway. */
export interface AuthHandler {
  readonly kind: string;
  /** The handlers that a combination asks, for descriptions of the routes. Left out: it is none. */
  readonly parts?: readonly AuthHandler[];
  /** Lower-case names of the headers that hold its credentials, beside `authorization`, `dpop` and `cookie`: no service sees them. */
  readonly credentialHeaders?: readonly string[];
  /** Everything that is wrong with the options; empty when `open` will succeed. Keeps nothing open. */
  check(): Promise<readonly Violation[]>;
  open(context: AuthContext): Promise<Authenticator>;
}
