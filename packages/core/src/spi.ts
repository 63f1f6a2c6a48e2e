export { Authorizer, type Decision } from './authorization/decide.js';
export { type RuleContext, type RuleHandle, toRuleSource } from './authorization/rule-source.js';
export { type ParsedRule, type ParsedRules, parseRules } from './authorization/rules.js';
export type { Codec } from './contract/contract.js';
export { contractOf, type MethodsOf } from './contract/service-definition.js';
export { type CertificateProfile, readProfile } from './identity/certificate-profile.js';
export { type Crl, parseCrl, verifyCrl } from './identity/crl.js';
export {
  asciiOf,
  bitStringOf,
  booleanOf,
  children,
  contextTag,
  DerError,
  DerReader,
  type DerValue,
  integerHexOf,
  oidOf,
  readOnly,
  Tag,
  timeOf,
} from './identity/der.js';
export { checkLeaf, checkSigner, type LeafVerdict, type SignerVerdict } from './identity/leaf-check.js';
export { type IdentityPattern, parsePattern } from './identity/matcher.js';
export { peerIdentityOf } from './identity/peer-identity.js';
export { defaultIdentityTemplate, type IdentityTemplate, parseIdentityTemplate } from './identity/template.js';
export { durationMs, type LimitRange, limit, type ParsedOptions, parseOptions } from './policy/options.js';
export { ChangeFeed, type ChangeFeedOptions } from './registry/change-feed.js';
export { type EndpointPolicy, endpointProblem, endpointSchema } from './registry/endpoint.js';
export {
  byId,
  isServiceName,
  isVersion,
  MAX_RECORD_BYTES,
  metadataSchema,
  type ParsedRecord,
  parseInstanceRecord,
  requireInstanceRecord,
  requireServiceName,
  sameRecord,
  serviceNameSchema,
} from './registry/record.js';
export { followService, type RegistryView, type RegistryViewOptions } from './registry/view.js';
export { isVersionRange, readyOnly } from './selector/filters.js';
export { decodeStatusDetails, encodeStatusDetails } from './transport/status-details.js';
