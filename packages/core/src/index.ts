export { type RuleFileOptions, rules } from './authorization/rule-file.js';
export type { RuleSource } from './authorization/rule-source.js';
export { allow, deny, type Effect, type Rule, type RuleDocument, type RuleOptions } from './authorization/rules.js';
export { exactly, type IdentityMatcher, matching, memberOf, oneOf } from './identity/matcher.js';
export type { PeerIdentity } from './identity/peer-identity.js';
export { parseSpiffeId, parseTrustDomain, SpiffeId } from './identity/spiffe-id.js';
