export { Authorizer, type Decision } from './authorization/decide.js';
export type { MethodPattern } from './authorization/method-pattern.js';
export { type RuleContext, type RuleHandle, toRuleSource } from './authorization/rule-source.js';
export { type ParsedRule, type ParsedRules, parseRules } from './authorization/rules.js';
export { Backoff, type BackoffOptions } from './backoff.js';
export { type Clock, every, MAX_TIMER_MS, systemClock, type Timer } from './clock.js';
export type { Codec } from './contract/contract.js';
export { contractOf, type MethodsOf } from './contract/service-definition.js';
export { CallError, Status, type StatusCode, statusName, UnprocessedCallError } from './errors.js';
export { EventBus } from './events/event-bus.js';
export type { EventMap, EventSink, HandshakeRefusal } from './events/events.js';
export { type FileDanger, type FileFinding, readSafeFile, type SafeFile } from './files/file-safety.js';
export { type FileWatch, type FileWatchOptions, lookAtFiles, watchFiles } from './files/file-watch.js';
export { canonicalPath, decodePercent, isCanonicalPath } from './http/canonical-path.js';
export { MalformedRequest } from './http/malformed-request.js';
export { isClaim, isHopByHop, isUnknownCoding, namedByConnection, readHeaders } from './http/request-headers.js';
export {
  type CertificateProfile,
  type Extension,
  readExtensions,
  readProfile,
} from './identity/certificate-profile.js';
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
export { listenLocally, listenOnce, listenOnFile, socketFile } from './local/listen-locally.js';
export { type LocalAddress, localAddress, localAddressText } from './local/local-address.js';
export { observeTls, type TlsMetricsOptions } from './metrics/tls-metrics.js';
export { bindAddress, isWildcard, wildcardViolations } from './policy/bind-address.js';
export { checkEnvironment, type Environment } from './policy/environment-guard.js';
export { InsecureConfigurationError } from './policy/insecure-configuration-error.js';
export { Networks, networkOf, networkSchema, plainAddress } from './policy/networks.js';
export { durationMs, type LimitRange, limit, made, type ParsedOptions, parseOptions } from './policy/options.js';
export { distinct, type Violation, violation } from './policy/violation.js';
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
  zoneSchema,
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
export { isSecret, SecretUnavailableError } from './secrets/secret.js';
export { isVersionRange, readyOnly } from './selector/filters.js';
export { identityProblems } from './service/readiness.js';
export { Registration, type RegistrationContext } from './service/registration.js';
export {
  type ClientTlsOptions,
  clientTlsOptions,
  type EnrolmentServerTlsOptions,
  enrolmentServerTlsOptions,
  keyExchangeGroups,
  type ServerTlsOptions,
  serverTlsOptions,
  type TlsTrust,
} from './tls/context.js';
export {
  type ClientHandshakeOptions,
  clientHandshake,
  type ExpectedServer,
  ServerRefusedError,
  type VerifiedServer,
} from './tls/handshake.js';
export {
  enrolmentAgent,
  type HttpsAgentOptions,
  httpsAgent,
  httpsServerOf,
  ServerIdentityError,
} from './tls/https-agent.js';
export {
  type MaterialContext,
  type ParsedBundle,
  type ParsedMaterial,
  type PemMaterial,
  parseBundle,
  parseMaterial,
} from './tls/material.js';
export { MaterialHolder } from './tls/material-holder.js';
export { pinnedHttpsAgent } from './tls/pinned-agent.js';
export { handshakeRefusal, type Refusal } from './tls/refusal.js';
export {
  isRevoked,
  type RevocationList,
  type RevocationProblem,
  revocationKeyOf,
  revocationKeysOf,
  revocationProblem,
} from './tls/revocation.js';
export { type LoadedServerTrust, loadServerTrust, type ServerTrust } from './tls/server-trust.js';
export type { Suspension, TlsContext, TlsHandle, TlsMaterial, TlsSource } from './tls/source.js';
export { successionProblem } from './tls/succession.js';
export {
  judgeRevocation,
  type PeerVerdict,
  type PresentedPeer,
  presentedPeer,
  type RevocationVerdict,
  verifyPeer,
} from './tls/verify-peer.js';
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
  ArrivingMessages,
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
