export { Authorizer, type Decision } from './authorization/decide.js';
export { type RuleContext, type RuleHandle, toRuleSource } from './authorization/rule-source.js';
export { type ParsedRule, type ParsedRules, parseRules } from './authorization/rules.js';
export { Backoff, type BackoffOptions } from './backoff.js';
export { type Clock, every, systemClock, type Timer } from './clock.js';
export type { Codec } from './contract/contract.js';
export { contractOf, type MethodsOf } from './contract/service-definition.js';
export { CallError, Status, type StatusCode, statusName } from './errors.js';
export { EventBus } from './events/event-bus.js';
export type { EventSink, HandshakeRefusal } from './events/events.js';
export { type FileDanger, type FileFinding, readSafeFile, type SafeFile } from './files/file-safety.js';
export { type FileWatch, type FileWatchOptions, watchFiles } from './files/file-watch.js';
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
export type { PeerIdentity } from './identity/peer-identity.js';
export { peerIdentityOf } from './identity/peer-identity.js';
export { defaultIdentityTemplate, type IdentityTemplate, parseIdentityTemplate } from './identity/template.js';
export { bindAddress, isWildcard, wildcardViolations } from './policy/bind-address.js';
export { checkEnvironment, type Environment } from './policy/environment-guard.js';
export { InsecureConfigurationError } from './policy/insecure-configuration-error.js';
export { durationMs, type LimitRange, limit, type ParsedOptions, parseOptions } from './policy/options.js';
export { type Violation, violation } from './policy/violation.js';
export { ChangeFeed, type ChangeFeedOptions } from './registry/change-feed.js';
export { type EndpointPolicy, endpointProblem, endpointSchema, isLoopback } from './registry/endpoint.js';
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
export type {
  Endpoint,
  InstanceRecord,
  Registry,
  RegistryContext,
  RegistryEvent,
  RegistrySession,
} from './registry/registry.js';
export { followService, type RegistryView, type RegistryViewOptions } from './registry/view.js';
export { redactSecrets, rememberSecret } from './secrets/redaction.js';
export { isSecret } from './secrets/secret.js';
export { isVersionRange, readyOnly } from './selector/filters.js';
export {
  type ClientTlsOptions,
  clientTlsOptions,
  keyExchangeGroups,
  type ServerTlsOptions,
  serverTlsOptions,
} from './tls/context.js';
export { type HttpsAgentOptions, httpsAgent } from './tls/https-agent.js';
export { type MaterialContext, type ParsedMaterial, type PemMaterial, parseMaterial } from './tls/material.js';
export { MaterialHolder } from './tls/material-holder.js';
export { handshakeRefusal, type Refusal } from './tls/refusal.js';
export { isRevoked, revocationKeyOf } from './tls/revocation.js';
export { type LoadedServerTrust, loadServerTrust, type ServerTrust } from './tls/server-trust.js';
export type { TlsContext, TlsHandle, TlsMaterial, TlsSource } from './tls/source.js';
export { type PeerVerdict, type PresentedPeer, presentedPeer, verifyPeer } from './tls/verify-peer.js';
export { type WebAgentOptions, webAgent } from './tls/web-agent.js';
export {
  type WebCertificateFiles,
  type WebTls,
  type WebTlsHandle,
  type WebTlsOptions,
  webTls,
} from './tls/web-certificates.js';
export { Metadata, type MetadataInit, type MetadataValue } from './transport/metadata.js';
export { decodeStatusDetails, encodeStatusDetails } from './transport/status-details.js';
export type {
  CallStatus,
  ClientHost,
  ClientStream,
  ClientTransport,
  Connection,
  ConnectionPool,
  ConnectTarget,
  IncomingCall,
  Listener,
  OutgoingCall,
  ServedMethod,
  ServerHost,
  ServerTransport,
  UnaryFlight,
  UnaryResult,
} from './transport/transport.js';
export { USER_METADATA_KEY, type UserStatement } from './user/user.js';
export { type SignedUser, UserSigner } from './user/user-signer.js';
