export type {
  Authority,
  AuthorityFileOptions,
  AuthorityOptions,
  IntermediateOptions,
  IssueOptions,
} from './authority.js';
export type { Instant } from './certificate.js';
export type { CrlOptions, Revocation, RevocationReason } from './crl.js';
export {
  type CertificateRequest,
  type CsrOptions,
  createCsr,
  createSignerCsr,
  type PendingIdentity,
  parseCsr,
} from './csr.js';
export { PkiError, type PkiErrorCode } from './errors.js';
export type { IdentityFiles, IssuedCertificate, IssuedIdentity } from './identity.js';
export type { KeyAlgorithm } from './keys.js';
export { type AuthorityService, createAuthorityService } from './service/authority-service.js';
export { createIssuerKey, type IssuerKey, type IssuerKeyOptions } from './service/issuer-key.js';
export type { AuthorityMaterial, IssuerOptions } from './service/issuers.js';
export type { AuthorityLimits, AuthorityServiceOptions } from './service/options.js';
export type { JoinToken, JoinTokenRequest, RevokeRequest } from './service/protocol.js';
export type { Signer } from './signer.js';
export { createAuthority, openAuthority } from './signing-authority.js';
export type { FromAuthorityOptions } from './sources/authority/options.js';
export { fromAuthority } from './sources/from-authority.js';
export { formatSpiffeBundle, parseSpiffeBundle, type SpiffeBundle } from './sources/spiffe-bundle.js';
export { type BundleEndpoint, fetchBundle } from './sources/spiffe-bundle-endpoint.js';
export { type FederationOptions, withFederation } from './sources/spiffe-federation.js';
export { fromVault } from './sources/vault/from-vault.js';
export type { FromVaultOptions, VaultAuth, VaultConnectionOptions } from './sources/vault/options.js';
export { type VaultStoreOptions, vaultSecret, vaultStore } from './sources/vault/secrets.js';
export { type FromWorkloadApiOptions, fromWorkloadApi } from './sources/workload-api/from-workload-api.js';
