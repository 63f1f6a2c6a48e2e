import type { HandshakeRefusal } from '@sallyport/core';
import { type Authority, createAuthority } from '@sallyport/pki';
import {
  buildCertificate,
  type CertificateIssuer,
  type CertificateOptions,
  type GeneralName,
  generateKeys,
  type RawOverrides,
} from '@sallyport/pki/raw';
import type { Credentials } from './intruders.js';

/** A certificate for `id` that nobody should accept, whoever shows it. */
export interface Forgery {
  readonly threat: string;
  /** Completes "refuses a client with …" and "refuses a server with …". */
  readonly what: string;
  forge(authority: Authority, id: string): Credentials;
  /** Why a server refuses it. */
  readonly reason: HandshakeRefusal;
  /** Why a client refuses it, where that differs: OpenSSL looks at the purpose of the other side. */
  readonly reasonAtClient?: HandshakeRefusal;
}

const HOUR_MS = 3_600_000;

export const forgeries: readonly Forgery[] = [
  {
    threat: 'T04',
    what: 'a self-signed certificate',
    forge: (_, id) => selfSigned({ subject: { commonName: 'vault' }, subjectAltName: { names: [{ uri: id }] } }),
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T04',
    what: 'a self-made root in its chain',
    forge(authority, id) {
      const { certificatePem, privateKeyPem } = imitation(authority).issue({ id });
      return { certificatePem: certificatePem + imitation(authority).certificatePem, privateKeyPem };
    },
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T05',
    what: 'a certificate of a foreign CA that has the same name',
    forge: (authority, id) => imitation(authority).issue({ id }),
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T05',
    what: 'a certificate that names our CA and was signed by another key',
    forge: (authority, id) =>
      leaf({ key: generateKeys().privateKey, certificate: authority.certificatePem }, { names: [{ uri: id }] }),
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T06',
    what: 'an expired certificate',
    forge: (authority, id) =>
      authority.issueRaw({ id, notBefore: Date.now() - 2 * HOUR_MS, notAfter: Date.now() - 2000 }),
    reason: 'expired',
  },
  {
    threat: 'T06',
    what: 'a certificate under an expired intermediate',
    forge: (authority, id) =>
      leafBelow(middle(authority, { notBefore: Date.now() - 2 * HOUR_MS, notAfter: Date.now() - 2000 }), id),
    reason: 'expired',
  },
  {
    threat: 'T07',
    what: 'a certificate that is not yet valid',
    forge: (authority, id) =>
      authority.issueRaw({ id, notBefore: Date.now() + HOUR_MS, notAfter: Date.now() + 2 * HOUR_MS }),
    reason: 'not-yet-valid',
  },
  svid('T11', 'a leaf that is a CA', { basicConstraints: { ca: true } }),
  {
    threat: 'T11',
    what: 'the certificate of a signing CA that carries a workload id',
    forge: (authority, id) =>
      authority.issueRaw({
        id,
        basicConstraints: { ca: true },
        keyUsage: { bits: ['digitalSignature', 'keyCertSign', 'cRLSign'] },
      }),
    reason: 'invalid-svid',
  },
  svid('T12', 'keyCertSign', { keyUsage: { bits: ['digitalSignature', 'keyCertSign'] } }),
  svid('T12', 'cRLSign', { keyUsage: { bits: ['digitalSignature', 'cRLSign'] } }),
  names('T13', 'no alternative name', () => undefined),
  names('T13', 'a DNS name and no URI', () => [{ dns: 'vault.test' }]),
  names('T13', 'two ids', (id) => [{ uri: id }, { uri: id.replace(/[^/]*$/, 'other') }]),
  names('T13', 'an id and a URI of another kind', (id) => [{ uri: id }, { uri: 'https://vault.test/' }]),
  names('T14', 'the id of the trust domain itself', (id) => [{ uri: domainOf(id) }]),
  names('T14', 'a root path', (id) => [{ uri: `${domainOf(id)}/` }]),
  names('T15', 'an encoded slash in its id', (id) => [{ uri: id.replace(/\/(?=[^/]*$)/, '%2f') }]),
  names('T15', 'a parent segment in its id', (id) => [{ uri: id.replace(/\/(?=[^/]*$)/, '/x/../') }]),
  names('T15', 'an empty segment in its id', (id) => [{ uri: id.replace(/\/(?=[^/]*$)/, '//') }]),
  names('T15', 'a slash after its id', (id) => [{ uri: `${id}/` }]),
  names('T15', 'its trust domain in upper case', (id) => [{ uri: id.replace('test', 'TEST') }]),
  names('T15', 'a scheme in upper case', (id) => [{ uri: id.replace('spiffe', 'SPIFFE') }]),
  names('T15', 'a port in its id', (id) => [{ uri: id.replace('/svc', ':443/svc') }]),
  names('T15', 'a user in its id', (id) => [{ uri: id.replace('://', '://root@') }]),
  names('T15', 'a query after its id', (id) => [{ uri: `${id}?as=root` }]),
  names('T15', 'a fragment after its id', (id) => [{ uri: `${id}#root` }]),
  names('T15', 'a zero byte in its id', (id) => [{ uri: `${id}\0.evil.test` }]),
  names('T15', 'a line break in its id', (id) => [{ uri: `${id}\nroot` }]),
  svid('T16', 'no key usage', { keyUsage: null }),
  svid('T16', 'an uncritical key usage', { keyUsage: { bits: ['digitalSignature'], critical: false } }),
  svid('T16', 'a key usage without digitalSignature', { keyUsage: { bits: ['keyAgreement'] } }),
  svid('T17', 'no extended key usage', { extendedKeyUsage: null }),
  {
    ...svid('T17', 'clientAuth alone', { extendedKeyUsage: ['clientAuth'] }),
    reasonAtClient: 'untrusted-issuer',
  },
  {
    ...svid('T17', 'serverAuth alone', { extendedKeyUsage: ['serverAuth'] }),
    reason: 'untrusted-issuer',
    reasonAtClient: 'invalid-svid',
  },
  names('T22', 'an id that was injected into a DNS name', (id) => [{ dns: `vault.test, URI:${id}` }]),
  names('T22', 'an id that was injected into a URI', (id) => [{ uri: `https://vault.test/, URI:${id}` }]),
  names('T22', 'an id that was injected in quotes', (id) => [{ uri: `https://vault.test/", "URI:${id}` }]),
  {
    threat: 'T23',
    what: 'a chain longer than its path length allows',
    forge(authority, id) {
      const outer = middle(authority, { basicConstraints: { ca: true, pathLength: 0 } });
      return leafBelow(below(outer, { basicConstraints: { ca: true } }), id);
    },
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T23',
    what: 'an id outside the permitted names of its intermediate',
    forge: (authority, id) =>
      leafBelow(middle(authority, { nameConstraints: { permitted: [{ uri: 'elsewhere.test' }] } }), id),
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T23',
    what: 'an id among the excluded names of its intermediate',
    forge: (authority, id) =>
      leafBelow(middle(authority, { nameConstraints: { excluded: [{ uri: authority.trustDomain }] } }), id),
    reason: 'untrusted-issuer',
  },
  {
    threat: 'T23',
    what: 'a certificate that another workload has signed',
    forge(authority, id) {
      const { certificatePem, privateKeyPem } = authority.issue({ id: id.replace(/[^/]*$/, 'other') });
      return leafBelow({ certificatePem, privateKeyPem, chainPem: certificatePem }, id);
    },
    reason: 'untrusted-issuer',
  },
];

/** The first of each threat, for tools beside the one that shows them all. */
export const oneOfEachThreat = forgeries.filter(
  ({ threat }, index) => forgeries.findIndex((other) => other.threat === threat) === index,
);

/** The fitting one of its kind: a chain with an intermediate that may sign exactly this. */
export function constrainedChain(authority: Authority, id: string): Credentials {
  const nameConstraints = { permitted: [{ uri: authority.trustDomain }] };
  return leafBelow(middle(authority, { basicConstraints: { ca: true, pathLength: 0 }, nameConstraints }), id);
}

/** Trusted chain, but a leaf that breaks a rule of X509-SVID. */
function svid(threat: string, what: string, overrides: Omit<RawOverrides, 'id'>): Forgery {
  return { threat, what, forge: (authority, id) => authority.issueRaw({ id, ...overrides }), reason: 'invalid-svid' };
}

function names(threat: string, what: string, of: (id: string) => GeneralName[] | undefined): Forgery {
  return {
    threat,
    what,
    forge(authority, id) {
      const list = of(id);
      return authority.issueRaw(list ? { subjectAltName: { names: list } } : { subject: { commonName: 'vault' } });
    },
    reason: 'invalid-svid',
  };
}

const imitations = new WeakMap<Authority, Authority>();

/** An authority that looks the same in everything but its key. */
function imitation(authority: Authority): Authority {
  const known = imitations.get(authority) ?? createAuthority({ trustDomain: authority.trustDomain });
  imitations.set(authority, known);
  return known;
}

/** A certificate that may sign, and what stands between it and the root. */
interface Signer extends Credentials {
  readonly chainPem: string;
}

const CA: RawOverrides = {
  subject: { commonName: 'intermediate' },
  basicConstraints: { ca: true },
  keyUsage: { bits: ['keyCertSign', 'cRLSign'] },
  extendedKeyUsage: null,
};

function middle(authority: Authority, overrides: RawOverrides): Signer {
  const { certificatePem, privateKeyPem } = authority.issueRaw({ ...CA, ...overrides });
  return { certificatePem, privateKeyPem, chainPem: certificatePem };
}

function below(signer: Signer, overrides: RawOverrides): Signer {
  const made = built({ ...CA, subject: { commonName: 'inner intermediate' }, ...overrides, issuer: issuerOf(signer) });
  return { ...made, chainPem: made.certificatePem + signer.chainPem };
}

function leafBelow(signer: Signer, id: string): Credentials {
  const { certificatePem, privateKeyPem } = leaf(issuerOf(signer), { names: [{ uri: id }] });
  return { certificatePem: certificatePem + signer.chainPem, privateKeyPem };
}

function leaf(
  issuer: CertificateIssuer,
  subjectAltName: NonNullable<CertificateOptions['subjectAltName']>,
): Credentials {
  return built({ issuer, subjectAltName });
}

function selfSigned(options: Partial<CertificateOptions>): Credentials {
  const { privateKey, publicKey } = generateKeys();
  return built({ ...options, subjectPublicKey: publicKey, issuer: { key: privateKey } }, privateKey);
}

function built(
  options: Partial<CertificateOptions> & { readonly issuer: CertificateIssuer },
  ownKey?: ReturnType<typeof generateKeys>['privateKey'],
): Credentials {
  const keys = generateKeys();
  const { pem } = buildCertificate({ subjectPublicKey: keys.publicKey, notAfter: Date.now() + HOUR_MS, ...options });
  const key = ownKey ?? keys.privateKey;
  return { certificatePem: pem, privateKeyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

function issuerOf({ certificatePem, privateKeyPem }: Credentials): CertificateIssuer {
  return { key: privateKeyPem, certificate: certificatePem };
}

function domainOf(id: string): string {
  return id.split('/').slice(0, 3).join('/');
}
