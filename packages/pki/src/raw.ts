export type { RawOverrides } from './authority.js';
export {
  type BuiltCertificate,
  buildCertificate,
  type CertificateIssuer,
  type CertificateOptions,
  type ExtraExtension,
} from './certificate.js';
export type { BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints } from './extensions.js';
export { generateKeys, type KeyPair } from './keys.js';
export type { DistinguishedName, GeneralName } from './names.js';
