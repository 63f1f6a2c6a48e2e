import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { createAuthority } from '@sallyport/pki';
import { buildCertificate, generateKeys, type RawOverrides } from '@sallyport/pki/raw';
import { requireOpenssl } from '../../support/openssl.js';
import { certificateText, verifyStrictly, web } from './support.js';

describe('the raw profile', () => {
  requireOpenssl();

  for (const [what, overrides, expected] of [
    ['an authority as a leaf', { basicConstraints: { ca: true } }, /CA:TRUE\n/],
    [
      'a leaf that may sign',
      { keyUsage: { bits: ['digitalSignature', 'keyCertSign'] } },
      /Signature, Certificate Sign\n/,
    ],
    [
      'a key usage that is not critical',
      { keyUsage: { bits: ['digitalSignature'], critical: false } },
      /Key Usage: ?\n/,
    ],
    [
      'half an extended key usage',
      { extendedKeyUsage: ['serverAuth'] },
      /Key Usage: ?\s+TLS Web Server Authentication\n/,
    ],
    [
      'two ids',
      { subjectAltName: uris(web, 'spiffe://prod.acme/svc/b') },
      /svc\/web, URI:spiffe:\/\/prod.acme\/svc\/b\n/,
    ],
    ['an encoded slash', { id: 'spiffe://prod.acme/svc%2fweb' }, /URI:spiffe:\/\/prod\.acme\/svc%2fweb\n/],
    ['a foreign domain', { id: 'spiffe://dev.acme/svc/web' }, /URI:spiffe:\/\/dev\.acme\/svc\/web\n/],
    ['an uncritical name', { subjectAltName: { ...uris(web), critical: false } }, /Alternative Name: ?\n/],
    [
      'a subject',
      { subject: { country: 'DE', organizationalUnit: 'ö', commonName: 'web' } },
      /Subject: C ?= ?DE, OU ?= ?/,
    ],
    [
      'an expired leaf',
      { notBefore: Date.UTC(2020, 0, 1), notAfter: Date.UTC(2020, 0, 2) },
      /After : Jan {2}2 00:00:00 2020/,
    ],
    ['a serial of its own', { serial: 'ff' }, /Serial Number: 255 \(0xff\)/],
    [
      'another issuer name',
      { issuer: { key: generateKeys().privateKey, name: { commonName: 'forged' } } },
      /CN ?= ?forged\n/,
    ],
    [
      'name constraints',
      { nameConstraints: constraints() },
      /Permitted:\s+URI:acme\s+Excluded:\s+IP:10\.0\.0\.0\/255\.128\.0\.0/,
    ],
    [
      'any extension',
      { extra: [{ oid: '1.2.3.4', critical: true, value: Buffer.from('0500', 'hex') }] },
      /1\.2\.3\.4: critical/,
    ],
  ] as const satisfies readonly (readonly [string, RawOverrides, RegExp])[]) {
    it(`writes ${what}`, () => {
      const leaf = createAuthority({ trustDomain: 'prod.acme' }).issueRaw({ id: web, ...overrides });

      assert.match(certificateText(leaf.certificatePem), expected);
    });
  }

  it('leaves out each extension when told so', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });

    const { certificatePem } = authority.issueRaw({ basicConstraints: null, keyUsage: null, extendedKeyUsage: null });

    const text = certificateText(certificatePem);
    assert.match(text, /Subject Key Identifier/);
    assert.doesNotMatch(text, /Basic Constraints|Key Usage|Alternative Name/);
  });

  it('writes a comma into a DNS name, which openssl prints as if it were a second name', () => {
    const names = [{ uri: web }, { dns: 'a, URI:spiffe://prod.acme/svc/admin' }, { email: 'ops@acme' }];

    const leaf = createAuthority({ trustDomain: 'prod.acme' }).issueRaw({ subjectAltName: { names } });

    assert.match(
      certificateText(leaf.certificatePem),
      /DNS:a, URI:spiffe:\/\/prod\.acme\/svc\/admin, email:ops@acme\n/,
    );
  });

  it('is the profile of a leaf where nothing is overridden, with a key that belongs to it', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate();

    const leaf = authority.issueRaw({ id: web });

    const verdict = verifyStrictly({ certificatePem: leaf.certificatePem, bundlePem: authority.bundlePem });
    assert.equal(verdict.status, 0, verdict.stderr);
    assert.equal(leaf.serial, new X509Certificate(leaf.certificatePem).serialNumber);
  });

  it('builds an authority below one that may have none, which openssl refuses', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate({ pathLength: 0 });
    const below = authority.issueRaw({
      subject: { commonName: 'below' },
      basicConstraints: { ca: true },
      keyUsage: { bits: ['keyCertSign'] },
      extendedKeyUsage: null,
    });
    const leaf = buildCertificate({
      subjectPublicKey: generateKeys('Ed25519').publicKey,
      issuer: { key: below.privateKeyPem, certificate: firstOf(below.certificatePem) },
      notAfter: below.notAfter,
      subjectAltName: { names: [{ uri: web }] },
    });

    const verdict = verifyStrictly({
      certificatePem: leaf.pem + below.certificatePem,
      bundlePem: authority.bundlePem,
    });

    assert.notEqual(verdict.status, 0);
    assert.match(verdict.stderr, /path length constraint exceeded/);
  });

  it('builds a leaf outside the name constraints of its authority, which openssl refuses', () => {
    const root = createAuthority({ trustDomain: 'prod.acme' });
    const constrained = root.issueRaw({
      subject: { commonName: 'constrained' },
      basicConstraints: { ca: true, pathLength: 0 },
      keyUsage: { bits: ['keyCertSign'] },
      extendedKeyUsage: null,
      nameConstraints: { permitted: [{ uri: 'dev.acme' }] },
    });
    const leaf = buildCertificate({
      subjectPublicKey: generateKeys().publicKey,
      issuer: { key: constrained.privateKeyPem, certificate: constrained.certificatePem },
      notAfter: constrained.notAfter,
      subjectAltName: { names: [{ uri: web }] },
    });

    const verdict = verifyStrictly({
      certificatePem: leaf.pem + constrained.certificatePem,
      bundlePem: root.bundlePem,
    });

    assert.notEqual(verdict.status, 0);
    assert.match(verdict.stderr, /permitted subtree violation/);
  });
});

function uris(...list: readonly string[]) {
  return { names: list.map((uri) => ({ uri })) };
}

function constraints() {
  return { permitted: [{ uri: 'acme' }], excluded: [{ ip: '10.0.0.0/9' }] };
}

function firstOf(pem: string): string {
  return `${pem.split('-----END CERTIFICATE-----')[0]}-----END CERTIFICATE-----\n`;
}
