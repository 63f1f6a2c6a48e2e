import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { parseSpiffeId } from '@sallyport/core';
import { checkLeaf, checkSigner, peerIdentityOf } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import type { RawOverrides } from '@sallyport/pki/raw';
import { mutations } from '../../../support/mutations.js';

const ID = 'spiffe://prod.acme/svc/web';
const authority = createAuthority({ trustDomain: 'prod.acme' });

function leaf(overrides: RawOverrides): Uint8Array {
  return derOf(authority.issueRaw({ id: ID, ...overrides }).certificatePem);
}

function derOf(pem: string): Uint8Array {
  return new X509Certificate(pem).raw;
}

/** SEQUENCE in SEQUENCE in SEQUENCE …, each with its true length. */
function nested(depth: number): Uint8Array {
  const header = (length: number) => Buffer.from(`3084${length.toString(16).padStart(8, '0')}`, 'hex');
  return Buffer.concat(Array.from({ length: depth }, (_, i) => header((depth - 1 - i) * 6)));
}

function withUris(...uris: string[]): RawOverrides {
  return { subjectAltName: { names: uris.map((uri) => ({ uri })) } };
}

function withConstructedUri(): RawOverrides {
  const uri = (text: string) => Buffer.concat([Buffer.of(0x86, text.length), Buffer.from(text)]);
  const part = Buffer.from('spiffe://prod.acme/svc/admin');
  const constructed = Buffer.concat([Buffer.of(0xa6, part.length + 2, 0x16, part.length), part]);
  const names = Buffer.concat([uri(ID), constructed]);
  return {
    id: '',
    extra: [{ oid: '2.5.29.17', critical: true, value: Buffer.concat([Buffer.of(0x30, names.length), names]) }],
  };
}

describe('leaf check', () => {
  for (const algorithm of ['P-256', 'P-384', 'Ed25519'] as const) {
    it(`accepts what our authority issues (${algorithm}) and says who it is`, () => {
      const issued = authority.issue({ id: ID, algorithm });

      const verdict = checkLeaf(derOf(issued.certificatePem));

      assert.ok(verdict.ok);
      assert.equal(verdict.id.toString(), ID);
    });
  }

  for (const [what, overrides] of [
    [
      'DNS names and addresses beside the id',
      { subjectAltName: { names: [{ dns: 'web.acme' }, { uri: ID }, { ip: '10.0.0.5' }] } },
    ],
    ['no basic constraints, which means cA=false', { basicConstraints: null }],
    ['an empty subject when its alternative name is critical', { subject: {} }],
    ['key agreement beside digitalSignature', { keyUsage: { bits: ['digitalSignature', 'keyAgreement'] } }],
    ['an unknown extension', { extra: [{ oid: '1.3.6.1.4.1.55555.1', value: Buffer.from('0500', 'hex') }] }],
  ] as [string, RawOverrides][]) {
    it(`accepts ${what}`, () => assert.deepEqual(checkLeaf(leaf(overrides)), { ok: true, id: parseSpiffeId(ID) }));
  }

  for (const [threat, what, overrides, reason] of [
    ['T11', 'cA=true', { basicConstraints: { ca: true } }, /cA=true/],
    ['T11', 'a path length without cA', { basicConstraints: { ca: false, pathLength: 0 } }, /path length/],
    ['T12', 'keyCertSign', { keyUsage: { bits: ['digitalSignature', 'keyCertSign'] } }, /keyCertSign/],
    ['T12', 'cRLSign', { keyUsage: { bits: ['digitalSignature', 'cRLSign'] } }, /cRLSign/],
    ['T13', 'no URI', { subjectAltName: { names: [{ dns: 'web.acme' }] } }, /no URI/],
    ['T13', 'two URIs', withUris(ID, 'spiffe://prod.acme/svc/admin'), /2 URIs/],
    ['T13', 'the same URI twice', withUris(ID, ID), /2 URIs/],
    // BER lets a string be constructed, and OpenSSL reads it: a second id that a reader of DER could pass over.
    ['T13', 'a second URI in constructed form', withConstructedUri(), /constructed/],
    ['T13', 'a URI of another scheme', withUris('https://prod.acme/svc/web'), /must start with "spiffe/],
    ['T13', 'a web address beside the id', withUris(ID, 'https://prod.acme'), /2 URIs/],
    ['T14', 'an id without a path', withUris('spiffe://prod.acme'), /a workload has a path/],
    ['T14', 'an id with an empty path', withUris('spiffe://prod.acme/'), /empty segment/],
    ['T15', 'an escaped slash', withUris('spiffe://prod.acme/svc%2fweb'), /may hold letters/],
    ['T15', 'a relative segment', withUris('spiffe://prod.acme/svc/../web'), /relative segment/],
    ['T15', 'an upper-case trust domain', withUris('spiffe://PROD.acme/svc/web'), /lower-case/],
    ['T15', 'a port', withUris('spiffe://prod.acme:8443/svc/web'), /trust domain holds/],
    ['T15', 'a zero byte', withUris('spiffe://prod.acme/svc/web\0.evil'), /may hold letters/],
    ['T15', 'letters beyond ASCII', withUris('spiffe://prod.acme/svc/wéb'), /not ASCII/],
    ['T16', 'no key usage', { keyUsage: null }, /key usage is missing/],
    [
      'T16',
      'key usage that is not critical',
      { keyUsage: { bits: ['digitalSignature'], critical: false } },
      /not critical/,
    ],
    ['T16', 'key usage without digitalSignature', { keyUsage: { bits: ['keyAgreement'] } }, /lacks digitalSignature/],
    ['T17', 'no extended key usage', { extendedKeyUsage: null }, /extended key usage is missing/],
    ['T17', 'serverAuth alone', { extendedKeyUsage: ['serverAuth'] }, /lacks clientAuth/],
    ['T17', 'clientAuth alone', { extendedKeyUsage: ['clientAuth'] }, /lacks serverAuth/],
    [
      'T22',
      'an id smuggled into a DNS name by a comma',
      { subjectAltName: { names: [{ dns: `web.acme, URI:${ID}` }] } },
      /no URI/,
    ],
    ['T22', 'an id smuggled into a URI by a comma', withUris(`spiffe://prod.acme/x, URI:${ID}`), /may hold letters/],
    [
      'RFC 5280',
      'an empty subject whose alternative name is not critical',
      { subject: {}, subjectAltName: { names: [{ uri: ID }], critical: false } },
      /not critical/,
    ],
    [
      'RFC 5280',
      'an extension that occurs twice',
      { extra: [{ oid: '2.5.29.37', value: Buffer.from('300a06082b06010505070301', 'hex') }] },
      /2\.5\.29\.37 occurs twice/,
    ],
  ] as [string, string, RawOverrides, RegExp][]) {
    it(`${threat}: refuses ${what}`, () => {
      const verdict = checkLeaf(leaf(overrides));

      assert.ok(!verdict.ok);
      assert.match(verdict.reason, reason);
    });
  }

  it('T22: is not fooled by a comma injection beside a true id', () => {
    const names = [{ dns: 'x, URI:spiffe://prod.acme/svc/admin' }, { uri: ID }];

    assert.deepEqual(checkLeaf(leaf({ subjectAltName: { names } })), { ok: true, id: parseSpiffeId(ID) });
  });

  it('refuses a CA certificate as a workload', () => {
    const verdict = checkLeaf(derOf(authority.certificatePem));

    assert.ok(!verdict.ok);
    assert.match(verdict.reason, /cA=true/);
  });

  for (const [what, bytes] of [
    ['nothing', Buffer.alloc(0)],
    ['PEM', Buffer.from(authority.certificatePem)],
    ['a certificate that is cut off', leaf({}).subarray(0, -1)],
    ['bytes after the certificate', Buffer.concat([leaf({}), Buffer.of(0)])],
    ['an indefinite length', Buffer.from('30800000', 'hex')],
    ['a length of 4 GiB', Buffer.from('3084ffffffff00', 'hex')],
    ['a deep nest', nested(10_000)],
    ['something that is no bytes at all', undefined as unknown as Uint8Array],
  ] as [string, Uint8Array][]) {
    it(`refuses ${what} without throwing`, () => assert.equal(checkLeaf(bytes).ok, false));
  }

  it('never throws on 10,000 mutations, and never finds an identity that is not in the bytes', () => {
    const original = leaf({});

    for (const bytes of mutations(original, { count: 10_000, seed: 0x5a11 })) {
      const verdict = checkLeaf(bytes);
      checkSigner(bytes);
      if (verdict.ok) assert.ok(Buffer.from(bytes).includes(verdict.id.toString()));
    }
  });
});

describe('signer check', () => {
  it('accepts our authority and what is below it', () => {
    for (const { certificatePem } of [authority, authority.intermediate()]) {
      assert.equal(checkSigner(derOf(certificatePem)).ok, true);
    }
  });

  for (const [what, overrides, trustDomain] of [
    ['with a SPIFFE ID', withUris('spiffe://prod.acme'), 'prod.acme'],
    ['without a SPIFFE ID', { subjectAltName: { names: [{ dns: 'ca.acme' }] } }, undefined],
  ] as [string, RawOverrides, string | undefined][]) {
    it(`accepts a CA ${what}`, () => {
      const signer = leaf({ basicConstraints: { ca: true }, keyUsage: { bits: ['keyCertSign'] }, ...overrides });

      assert.deepEqual(checkSigner(signer), { ok: true, trustDomain });
    });
  }

  for (const [what, overrides, reason] of [
    ['a leaf', {}, /cA=false/],
    [
      'a CA that may not sign certificates',
      { basicConstraints: { ca: true }, keyUsage: { bits: ['cRLSign'] } },
      /keyCertSign/,
    ],
    ['a CA without key usage', { basicConstraints: { ca: true }, keyUsage: null }, /keyCertSign/],
    [
      'a CA that is a workload at the same time',
      { basicConstraints: { ca: true }, keyUsage: { bits: ['keyCertSign'] } },
      /is not a trust domain/,
    ],
    [
      'a CA of two trust domains',
      {
        basicConstraints: { ca: true },
        keyUsage: { bits: ['keyCertSign'] },
        ...withUris('spiffe://prod.acme', 'spiffe://test.acme'),
      },
      /several SPIFFE IDs/,
    ],
  ] as [string, RawOverrides, RegExp][]) {
    it(`refuses ${what}`, () => {
      const verdict = checkSigner(leaf(overrides));

      assert.ok(!verdict.ok);
      assert.match(verdict.reason, reason);
    });
  }
});

describe('peer identity', () => {
  it('sums up a leaf', () => {
    const issued = authority.issue({ id: ID });
    const x509 = new X509Certificate(issued.certificatePem);

    const peer = peerIdentityOf(x509, parseSpiffeId(ID));

    assert.equal(peer.id, ID);
    assert.equal(peer.serial, issued.serial);
    assert.match(peer.fingerprint, /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
    assert.equal(peer.notAfter, issued.notAfter);
  });
});
