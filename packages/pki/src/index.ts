export type {
  Authority,
  AuthorityFileOptions,
  AuthorityOptions,
  IntermediateOptions,
  IssueOptions,
} from './authority.js';
export type { Instant } from './certificate.js';
export type { CrlOptions, Revocation, RevocationReason } from './crl.js';
export { type CertificateRequest, type CsrOptions, createCsr, type PendingIdentity, parseCsr } from './csr.js';
export { PkiError, type PkiErrorCode } from './errors.js';
export type { IdentityFiles, IssuedCertificate, IssuedIdentity } from './identity.js';
export type { KeyAlgorithm } from './keys.js';
export { createAuthority, openAuthority } from './signing-authority.js';
export type { FromAuthorityOptions } from './sources/authority/options.js';
export { fromAuthority } from './sources/from-authority.js';
export { fromVault } from './sources/vault/from-vault.js';
export type { FromVaultOptions, VaultAuth, VaultConnectionOptions } from './sources/vault/options.js';
export { type VaultStoreOptions, vaultSecret, vaultStore } from './sources/vault/secrets.js';
export { type FromWorkloadApiOptions, fromWorkloadApi } from './sources/workload-api/from-workload-api.js';
