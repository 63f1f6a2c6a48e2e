/** For whom a call is made: a person or program outside of the mesh, whom a gateway has authenticated. */
export interface User {
  /** Unique within the issuer. */
  readonly subject: string;
  /** Who vouches for the subject: the issuer of a token, the name of a key store, the CA of a certificate. */
  readonly issuer: string;
  readonly scopes: ReadonlySet<string>;
  /** Those that the gateway passes on. A claim that the user does not have is absent, never empty. */
  readonly claims: Readonly<Record<string, unknown>>;
  /** How the gateway was convinced: `jwt`, `api-key`, … */
  readonly method: string;
  /** SPIFFE ID of the gateway. */
  readonly via: string;
  /** End of the proof, ms since the epoch. */
  readonly expiresAt: number;
}

/** What a gateway says of a user. */
export type UserStatement = Omit<User, 'via'>;

/** Metadata key under which it travels; handlers do not see it there, because only `call.user` was verified. */
export const USER_METADATA_KEY = 'sallyport-user';
/** `typ` of the token, so that no other token of the same key passes for one (RFC 8725 section 3.11). */
export const USER_TOKEN_TYPE = 'sallyport-user+jwt';
/** Longest life of a token. */
export const MAX_USER_TOKEN_MS = 60_000;
