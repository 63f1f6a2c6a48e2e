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
import type { CallMetadata } from '../routes/rpc-handler.js';

interface Remembered {
  /** Checked once, sent with every call. */
  readonly metadata: Metadata;
  /** Ms since the epoch; from then on a new one is made. */
  readonly renewAt: number;
  readonly generation: number;
}

const template = parseIdentityTemplate(defaultIdentityTemplate);

/**
 * Tells each service for whom the gateway calls it: a token for that service alone, of at most 60 s, made anew at two thirds
 * of its life. One is kept for each service as long as the principal itself is remembered.
 */
export class UserTokens {
  readonly #tls: TlsHandle;
  readonly #clock: Clock;
  readonly #signer: UserSigner;
  readonly #claims: readonly string[];
  readonly #remembered = new WeakMap<Principal, Map<string, Remembered>>();

  /** `claims` are the names of those that are passed on. */
  constructor(tls: TlsHandle, clock: Clock, claims: readonly string[]) {
    this.#tls = tls;
    this.#clock = clock;
    this.#signer = new UserSigner(tls, clock);
    this.#claims = claims;
  }

  /** Undefined where nobody was authenticated: the service then knows of no user. */
  readonly metadata: CallMetadata = ({ principal, route }) => {
    if (!principal || route.kind === 'local') return undefined;
    const target = route.kind === 'rpc' ? route.options.service : route.options.upstream;
    return this.#metadataFor(principal, target);
  };

  #metadataFor(principal: Principal, target: string): Metadata {
    const now = this.#clock.now();
    const { generation } = this.#signer;
    const tokens = this.#remembered.get(principal) ?? new Map<string, Remembered>();
    this.#remembered.set(principal, tokens);
    const known = tokens.get(target);
    if (known && known.renewAt > now && known.generation === generation) return known.metadata;
    const signed = this.#signer.sign({ ...principal, claims: this.#chosen(principal) }, this.#audienceOf(target));
    const metadata = Metadata.from({ [USER_METADATA_KEY]: signed.token });
    tokens.set(target, { metadata, renewAt: now + ((signed.expiresAt - now) * 2) / 3, generation });
    return metadata;
  }

  /** The SPIFFE ID of a service, or the address of a program that the registry does not know. */
  #audienceOf(target: string): string {
    if (URL.canParse(target)) return new URL(target).origin;
    return template.idFor(this.#tls.current().identity.trustDomain, target).toString();
  }

  /** A claim that the user does not have stays absent. */
  #chosen({ claims }: Principal): Readonly<Record<string, unknown>> {
    const named = this.#claims.filter((name) => Object.hasOwn(claims, name));
    return Object.fromEntries(named.map((name) => [name, claims[name]]));
  }
}
