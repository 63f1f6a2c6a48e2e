export { type RuleFileOptions, rules } from './authorization/rule-file.js';
export type { RuleSource } from './authorization/rule-source.js';
export { allow, deny, type Effect, type Rule, type RuleDocument, type RuleOptions } from './authorization/rules.js';
export type { Client, ClientMethodOf } from './contract/client-types.js';
export type { AnyContract, Method, MethodKind, MethodShape, Methods } from './contract/contract.js';
export {
  bidi,
  type Contract,
  type ContractOptions,
  clientStream,
  defineContract,
  serverStream,
  unary,
} from './contract/define-contract.js';
export type { HandlerOf, Handlers } from './contract/handlers.js';
export type { ContractSource, GrpcMethodDefinition, GrpcServiceDefinition } from './contract/service-definition.js';
export { exactly, type IdentityMatcher, matching, memberOf, oneOf } from './identity/matcher.js';
export type { PeerIdentity } from './identity/peer-identity.js';
export { parseSpiffeId, parseTrustDomain, SpiffeId } from './identity/spiffe-id.js';
export {
  badRequest,
  type ErrorInfo,
  errorInfo,
  type FieldViolation,
  type StatusDetail,
} from './transport/status-details.js';
