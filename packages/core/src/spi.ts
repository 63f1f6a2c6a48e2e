export { Authorizer, type Decision } from './authorization/decide.js';
export { type ParsedRule, type ParsedRules, parseRules } from './authorization/rules.js';
export { type CertificateProfile, readProfile } from './identity/certificate-profile.js';
export { type Crl, parseCrl, verifyCrl } from './identity/crl.js';
export { checkLeaf, checkSigner, type LeafVerdict, type SignerVerdict } from './identity/leaf-check.js';
export { type IdentityPattern, parsePattern } from './identity/matcher.js';
export { peerIdentityOf } from './identity/peer-identity.js';
export { defaultIdentityTemplate, type IdentityTemplate, parseIdentityTemplate } from './identity/template.js';
export { durationMs, type LimitRange, limit, type ParsedOptions, parseOptions } from './policy/options.js';
