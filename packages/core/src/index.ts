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
export type { LocalRegistryOptions } from './registry/local.js';
export type { MemoryRegistryOptions } from './registry/memory.js';
export { registry } from './registry/registries.js';
export type {
  Endpoint,
  InstanceRecord,
  InstanceState,
  Registry,
  RegistryContext,
  RegistryEvent,
  RegistrySession,
  RegistryState,
} from './registry/registry.js';
export type { Filter, VersionFilterOptions, ZoneFilterOptions } from './selector/filters.js';
export type { Candidate, RandomSource, Selector } from './selector/selector.js';
export { selector } from './selector/selectors.js';
export {
  badRequest,
  type ErrorInfo,
  errorInfo,
  type FieldViolation,
  type StatusDetail,
} from './transport/status-details.js';
