import type { SpiffeId } from './spiffe-id.js';
/** A set of identities, as a value. */
export interface IdentityMatcher {
  matches(id: SpiffeId): boolean;
  /** For messages: what it stands for. */
  readonly description: string;
  /** The one trust domain all its members belong to. */
  readonly trustDomain: string;
}
