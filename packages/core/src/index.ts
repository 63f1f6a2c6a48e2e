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
  type MethodShapes,
  type MethodsOfShapes,
  serverStream,
  unary,
} from './contract/define-contract.js';
export type { HandlerOf, Handlers } from './contract/handlers.js';
export type { ContractSource, GrpcMethodDefinition, GrpcServiceDefinition } from './contract/service-definition.js';
export {
  CallError,
  type CallErrorOptions,
  Status,
  type StatusCode,
  type StatusName,
  statusName,
  UsageError,
} from './errors.js';
export { type ConsoleLoggerOptions, consoleLogger, silentLogger } from './events/console-logger.js';
export type { EventListener } from './events/event-bus.js';
export type { EventMap, EventType, HandshakeRefusal, SallyportEvent } from './events/events.js';
export type { Logger, LogLevel } from './events/logger.js';
export { exactly, type IdentityMatcher, matching, memberOf, oneOf } from './identity/matcher.js';
export type { PeerIdentity } from './identity/peer-identity.js';
export { parseSpiffeId, parseTrustDomain, SpiffeId } from './identity/spiffe-id.js';
export { catalogue, type ViolationId } from './policy/catalogue.js';
export { InsecureConfigurationError } from './policy/insecure-configuration-error.js';
export type { Severity, Violation } from './policy/violation.js';
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
export { Secret, type SecretStore, SecretUnavailableError, secret } from './secrets/secret.js';
export type { Filter, VersionFilterOptions, ZoneFilterOptions } from './selector/filters.js';
export type { Candidate, RandomSource, Selector } from './selector/selector.js';
export { selector } from './selector/selectors.js';
export type { Call } from './service/call.js';
export type { CallOptions, Cancellation } from './service/call-options.js';
export type { ServiceClientOptions } from './service/client-options.js';
export { createService, type Service } from './service/create-service.js';
export type { ServiceState } from './service/lifecycle.js';
export type { Readiness } from './service/readiness.js';
export { type Runnable, type RunOptions, runService } from './service/run-service.js';
export type { ServiceOptions } from './service/service-options.js';
export type {
  DirectoryOptions,
  FileLayout,
  FromFilesOptions,
  PemFilesOptions,
  Pkcs12Options,
  TrustFilesOptions,
} from './tls/from-files.js';
export type { TlsSource } from './tls/source.js';
export { tls } from './tls/tls.js';
export type { ClientCall, ClientInterceptor, ServerInterceptor } from './transport/interceptors.js';
export { Metadata, type MetadataInit, type MetadataValue } from './transport/metadata.js';
export {
  badRequest,
  badRequestOf,
  type ErrorInfo,
  errorInfo,
  errorInfoOf,
  type FieldViolation,
  type StatusDetail,
} from './transport/status-details.js';
export type { User } from './user/user.js';
