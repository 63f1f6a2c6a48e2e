import { hash } from 'node:crypto';
import {
  type Clock,
  defaultIdentityTemplate,
  Metadata,
  parseIdentityTemplate,
  type TlsHandle,
  USER_METADATA_KEY,
  UserSigner,
} from '@sallyport/core/spi';
import type { Principal } from '../auth/handler.js';
import type { CallMetadata, RpcRoute } from '../routes/rpc-handler.js';

interface Remembered {
  /** Checked once, sent with every call. */
  readonly metadata: Metadata;
  /** Ms since the epoch; from then on a new one is made. */
  readonly renewAt: number;
  /** End of the proof that it speaks of, ms since the epoch. */
  readonly provenUntil: number;
}

/** Tokens of 2 or 3 KiB each. */
const MAX_REMEMBERED = 4096;
/** Longer ones, with claims that only few users have, would make the table large. */
const MAX_REMEMBERED_LENGTH = 8192;
const template = parseIdentityTemplate(defaultIdentityTemplate);

/**
 * Tells each service for whom the gateway calls it: a token for that service alone, of at most 60 s, made anew at two thirds
 * of its life. It is sent again for the same principal, and for one about whom it would say the same to the letter: some
 * handlers make a new principal for each request.
 */
export class UserTokens {
  readonly #tls: TlsHandle;
  readonly #clock: Clock;
  readonly #signer: UserSigner;
  readonly #claims: readonly string[];
  /** By principal and audience: the path of most requests. */
  #ofPrincipals = new WeakMap<Principal, Map<string, Remembered>>();
  /** By the hash of everything that is said, in the order in which they were made. */
  readonly #ofStatements = new Map<string, Remembered>();
  /** SPIFFE IDs by the names of services. */
  readonly #ids = new Map<string, string>();
  #generation = -1;

  /** `claims` are the names of those that are passed on. */
  constructor(tls: TlsHandle, clock: Clock, claims: readonly string[]) {
    this.#tls = tls;
    this.#clock = clock;
    this.#signer = new UserSigner(tls, clock);
    this.#claims = claims;
  }

  /**
   * Undefined where nobody was authenticated: the service then knows of no user. For HTTP it is said to the `server` that has
   * proven itself on the very connection, for RPC to the identity that a call cannot but end at.
   */
  readonly metadata: CallMetadata = ({ principal, route }, server) => {
    if (!principal || route.kind === 'local') return undefined;
    this.#forgetAfterRotation();
    const audience = route.kind === 'rpc' ? this.#audienceOf(route.options) : server?.toString();
    return audience === undefined ? undefined : this.#metadataFor(principal, audience);
  };

  /** What another key has signed, and in the name of another identity. */
  #forgetAfterRotation(): void {
    const { generation } = this.#signer;
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#ofPrincipals = new WeakMap();
    this.#ofStatements.clear();
    this.#ids.clear();
  }

  #metadataFor(principal: Principal, audience: string): Metadata {
    const now = this.#clock.now();
    const ofPrincipal = this.#ofPrincipals.get(principal) ?? new Map<string, Remembered>();
    const known = ofPrincipal.get(audience);
    if (known && known.renewAt > now) return known.metadata;
    const token = this.#tokenFor(principal, audience, now);
    ofPrincipal.set(audience, token);
    this.#ofPrincipals.set(principal, ofPrincipal);
    return token.metadata;
  }

  #tokenFor(principal: Principal, audience: string, now: number): Remembered {
    const { issuer, subject, method, scopes, expiresAt } = principal;
    const claims = this.#chosen(principal);
    const said = JSON.stringify([audience, issuer, subject, method, [...scopes], claims]);
    const statement = hash('sha256', said, 'base64url');
    const known = this.#ofStatements.get(statement);
    // A proof that ends earlier must not seem to end as late as the one before.
    if (known && known.renewAt > now && known.provenUntil <= expiresAt) return known;
    const signed = this.#signer.sign({ issuer, subject, method, scopes, expiresAt, claims }, audience);
    const token: Remembered = {
      metadata: Metadata.from({ [USER_METADATA_KEY]: signed.token }),
      renewAt: now + ((signed.expiresAt - now) * 2) / 3,
      provenUntil: expiresAt,
    };
    this.#ofStatements.delete(statement);
    if (signed.token.length > MAX_REMEMBERED_LENGTH) return token;
    this.#ofStatements.set(statement, token);
    for (const oldest of this.#ofStatements.keys()) {
      if (this.#ofStatements.size <= MAX_REMEMBERED) break;
      this.#ofStatements.delete(oldest);
    }
    return token;
  }

  /** The SPIFFE ID of the service: whoever shows another one will not get the call. */
  #audienceOf({ service, identity }: RpcRoute['options']): string {
    const known = identity ?? this.#ids.get(service);
    if (known !== undefined) return known;
    const id = template.idFor(this.#tls.current().identity.trustDomain, service).toString();
    this.#ids.set(service, id);
    return id;
  }

  /** A claim that the user does not have stays absent. */
  #chosen({ claims }: Principal): Readonly<Record<string, unknown>> {
    const named = this.#claims.filter((name) => Object.hasOwn(claims, name));
    return Object.fromEntries(named.map((name) => [name, claims[name]]));
  }
}
