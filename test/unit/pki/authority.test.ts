import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { inspect } from 'node:util';
import { checkLeaf, checkSigner } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { openssl, requireOpenssl } from '../../support/openssl.js';
import { algorithms, certificateText, refusal, verifyStrictly, web } from './support.js';

const HOUR_MS = 3_600_000;

describe('an authority, judged by openssl', () => {
  requireOpenssl();

  for (const algorithm of algorithms) {
    it(`issues ${algorithm} leaves that verify strictly, for servers and for clients`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme', algorithm }).intermediate({ algorithm });

      const leaf = authority.issue({ id: web, algorithm });

      const chain = { ...leaf, certificatePem: leaf.certificatePem, bundlePem: authority.bundlePem };
      for (const purpose of ['sslserver', 'sslclient']) {
        const verdict = verifyStrictly(chain, '-purpose', purpose);
        assert.equal(verdict.status, 0, verdict.stderr);
      }
    });

    it(`makes an ${algorithm} root that signs itself and verifies strictly`, () => {
      const root = createAuthority({ trustDomain: 'prod.acme', algorithm });

      const verdict = verifyStrictly({ certificatePem: root.certificatePem, bundlePem: root.bundlePem });

      assert.equal(verdict.status, 0, verdict.stderr);
    });

    it(`issues ${algorithm} keys that openssl reads and that belong to the certificate`, () => {
      const leaf = createAuthority({ trustDomain: 'prod.acme', algorithm }).issue({ id: web, algorithm });

      const ofKey = openssl(['pkey', '-pubout'], { input: leaf.privateKeyPem });
      const ofCertificate = openssl(['x509', '-noout', '-pubkey'], { input: leaf.certificatePem });

      assert.equal(ofKey.status, 0, ofKey.stderr);
      assert.equal(ofKey.stdout, ofCertificate.stdout);
    });
  }

  it('refuses nothing of a chain that mixes all three algorithms', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme', algorithm: 'Ed25519' })
      .intermediate({ algorithm: 'P-384', pathLength: 1 })
      .intermediate({ algorithm: 'P-256' });
    const leaf = authority.issue({ id: web, algorithm: 'Ed25519' });

    const verdict = verifyStrictly({ certificatePem: leaf.certificatePem, bundlePem: authority.bundlePem });

    assert.equal(verdict.status, 0, verdict.stderr);
  });

  it('issues leaves that another authority of the same name does not vouch for', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const stranger = createAuthority({ trustDomain: 'prod.acme' });
    const leaf = authority.issue({ id: web });

    const verdict = verifyStrictly({ certificatePem: leaf.certificatePem, bundlePem: stranger.bundlePem });

    assert.notEqual(verdict.status, 0);
    assert.match(verdict.stderr, /unable to get local issuer certificate/);
  });

  it('issues leaves that verify while an old and a new root of the same name are both trusted', () => {
    const old = createAuthority({ trustDomain: 'prod.acme' });
    const renewed = createAuthority({ trustDomain: 'prod.acme' });
    const bundlePem = old.bundlePem + renewed.bundlePem;

    for (const authority of [old, renewed]) {
      const { certificatePem } = authority.intermediate().issue({ id: web });
      const verdict = verifyStrictly({ certificatePem, bundlePem });
      assert.equal(verdict.status, 0, verdict.stderr);
    }
  });

  it('writes the leaf profile of SPIFFE', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const leaf = authority.issue({
      id: web,
      dns: ['web.internal'],
      ip: ['10.0.0.5', '2001:db8::5', '::ffff:10.0.0.6'],
    });

    const text = certificateText(leaf.certificatePem);

    assert.match(text, /Version: 3/);
    assert.match(text, /Subject: ?\n/);
    assert.match(text, /Basic Constraints: critical\s+CA:FALSE/);
    assert.match(text, /X509v3 Key Usage: critical\s+Digital Signature\n/);
    assert.match(text, /Extended Key Usage: ?\s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
    assert.match(text, /Subject Alternative Name: critical\s+URI:spiffe:\/\/prod\.acme\/svc\/web, DNS:web\.internal/);
    assert.match(text, /IP Address:10\.0\.0\.5, IP Address:2001:DB8:0:0:0:0:0:5, IP Address:0:0:0:0:0:FFFF:A00:6\n/);
    assert.match(text, /Authority Key Identifier/);
    assert.match(text, /Subject Key Identifier/);
  });

  it('writes the profile of a SPIFFE signing certificate', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate();

    const text = certificateText(authority.certificatePem);

    assert.match(text, /Issuer: O ?= ?prod\.acme, CN ?= ?Sallyport root\n/);
    assert.match(text, /Subject: O ?= ?prod\.acme, CN ?= ?Sallyport intermediate\n/);
    assert.match(text, /Basic Constraints: critical\s+CA:TRUE, pathlen:0\n/);
    assert.match(text, /X509v3 Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
    assert.match(text, /Subject Alternative Name: ?\s+URI:spiffe:\/\/prod\.acme\n/);
    assert.doesNotMatch(text, /Extended Key Usage/);
  });

  it('writes years from 2050 on so that they are read as such', () => {
    const root = createAuthority({ trustDomain: 'prod.acme', notBefore: Date.UTC(2049, 11, 31), ttlMs: 48 * HOUR_MS });

    const text = certificateText(root.certificatePem);

    assert.match(text, /Not Before: Dec 31 00:00:00 2049 GMT\s+Not After : Jan {2}2 00:00:00 2050 GMT/);
  });
});

describe('an authority', () => {
  it('issues leaves for an hour, backdated by a minute', () => {
    const leaf = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: web });
    const certificate = new X509Certificate(leaf.certificatePem);

    assert.equal(leaf.notAfter, Date.parse(certificate.validTo));
    assert.equal(leaf.notAfter - Date.parse(certificate.validFrom), HOUR_MS + 60_000);
    assert.ok(Math.abs(Date.parse(certificate.validFrom) + 60_000 - Date.now()) < 5000);
  });

  it('tells the serial number as node does, positive, and never the same twice', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const leaves = [authority.issue({ id: web }), authority.issue({ id: web })];

    for (const leaf of leaves) {
      assert.equal(leaf.serial, new X509Certificate(leaf.certificatePem).serialNumber);
      assert.match(leaf.serial, /^[4-7][0-9A-F]{31}$/);
    }
    assert.notEqual(leaves[0]?.serial, leaves[1]?.serial);
  });

  it('never lets a leaf or an intermediate outlive their issuer', () => {
    const root = createAuthority({ trustDomain: 'prod.acme', ttlMs: 2 * HOUR_MS });
    const intermediate = root.intermediate({ ttlMs: 1000 * HOUR_MS });
    const leaf = intermediate.issue({ id: web, ttlMs: 1000 * HOUR_MS });

    assert.equal(intermediate.notAfter, root.notAfter);
    assert.equal(leaf.notAfter, root.notAfter);
    assert.equal(Date.parse(new X509Certificate(leaf.certificatePem).validTo), root.notAfter);
  });

  it('refuses to issue once it has expired', () => {
    const notBefore = Date.now() - 2 * HOUR_MS;
    const authority = createAuthority({ trustDomain: 'prod.acme', notBefore, ttlMs: HOUR_MS });

    assert.throws(() => authority.issue({ id: web }), refusal('validity'));
  });

  for (const ttlMs of [0, -1, Number.NaN]) {
    it(`refuses a life of ${ttlMs} ms`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme' });

      assert.throws(() => authority.issue({ id: web, ttlMs }), refusal('validity'));
    });
  }

  it('issues expired and future leaves when told so, for tests of others', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme', notBefore: Date.now() - 24 * HOUR_MS });

    const expired = authority.issue({ id: web, notBefore: Date.now() - 2 * HOUR_MS });
    const future = authority.issue({ id: web, notBefore: new Date(Date.now() + 2 * HOUR_MS) });

    assert.ok(expired.notAfter < Date.now());
    assert.ok(Date.parse(new X509Certificate(future.certificatePem).validFrom) > Date.now());
  });

  it('issues for its own trust domain', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate();

    const leaf = authority.issue({ id: web });

    assert.equal(leaf.id, web);
    assert.equal(new X509Certificate(leaf.certificatePem).subjectAltName, `URI:${web}`);
  });

  it('issues leaves that pass the leaf check, under authorities that pass theirs', () => {
    const root = createAuthority({ trustDomain: 'prod.acme' });
    const authority = root.intermediate();

    const leaf = checkLeaf(new X509Certificate(authority.issue({ id: web }).certificatePem).raw);
    const signers = [root, authority].map(({ certificatePem }) => checkSigner(new X509Certificate(certificatePem).raw));

    assert.equal(leaf.ok && leaf.id.toString(), web);
    assert.deepEqual(signers, Array(2).fill({ ok: true, trustDomain: 'prod.acme' }));
  });

  it('refuses an id of another trust domain', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });

    assert.throws(() => authority.issue({ id: 'spiffe://dev.acme/svc/web' }), refusal('id-foreign'));
  });

  for (const id of [
    '',
    'spiffe://prod.acme',
    'spiffe://prod.acme/',
    'spiffe://prod.acme/svc/',
    'spiffe://prod.acme//web',
    'spiffe://prod.acme/svc/../web',
    'spiffe://prod.acme/svc/%2fweb',
    'spiffe://PROD.acme/svc/web',
    'spiffe://prod.acme:8443/svc/web',
    'spiffe://user@prod.acme/svc/web',
    'spiffe://prod.acme/svc/web?a',
    'SPIFFE://prod.acme/svc/web',
    'https://prod.acme/svc/web',
    'spiffe://prod.acme/svc/web\n',
    `spiffe://prod.acme/${'a'.repeat(2048)}`,
  ]) {
    it(`refuses the id ${JSON.stringify(id.slice(0, 40))}`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme' });

      assert.throws(() => authority.issue({ id }), refusal('id-malformed'));
    });
  }

  for (const trustDomain of ['', 'PROD.acme', 'prod.acme/x', 'prod acme', 'a'.repeat(256)]) {
    it(`refuses the trust domain ${JSON.stringify(trustDomain.slice(0, 40))}`, () => {
      assert.throws(() => createAuthority({ trustDomain }), refusal('trust-domain-malformed'));
    });
  }

  for (const dns of [
    '*.acme',
    'WEB.acme',
    'web.acme, URI:spiffe://prod.acme/svc/admin',
    'web..acme',
    '-web',
    '',
    'web.',
  ]) {
    it(`refuses the DNS name ${JSON.stringify(dns)}`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme' });

      assert.throws(() => authority.issue({ id: web, dns: [dns] }), refusal('name-malformed'));
    });
  }

  for (const ip of ['10.0.0', '10.0.0.0/8', 'fe80::1%lo', 'localhost', '']) {
    it(`refuses the IP address ${JSON.stringify(ip)}`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme' });

      assert.throws(() => authority.issue({ id: web, ip: [ip] }), refusal('name-malformed'));
    });
  }

  it('refuses an algorithm it does not know', () => {
    // @ts-expect-error RSA is not among the algorithms
    assert.throws(() => createAuthority({ trustDomain: 'prod.acme', algorithm: 'RSA' }), refusal('algorithm-unknown'));
  });

  it('makes as many levels as the path length allows', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate({ pathLength: 1 }).intermediate();

    assert.equal(authority.trustDomain, 'prod.acme');
  });

  it('refuses a level more than the path length allows', () => {
    const root = createAuthority({ trustDomain: 'prod.acme' });

    assert.throws(() => root.intermediate().intermediate(), refusal('path-length'));
    assert.throws(() => root.intermediate({ pathLength: 1 }).intermediate({ pathLength: 1 }), refusal('path-length'));
  });

  it('presents intermediates with a leaf, nearest first, and never the root', () => {
    const root = createAuthority({ trustDomain: 'prod.acme' });
    const upper = root.intermediate({ pathLength: 1 });
    const lower = upper.intermediate();

    const leaf = lower.issue({ id: web });

    assert.ok(leaf.certificatePem.endsWith(lower.certificatePem + upper.certificatePem));
    assert.ok(!leaf.certificatePem.includes(root.certificatePem));
    assert.equal(lower.bundlePem, root.certificatePem);
  });

  it('shows no key, neither its own nor that of a leaf', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const leaf = authority.issue({ id: web });
    const secret = leaf.privateKeyPem.split('\n')[1] ?? '';

    for (const shown of [leaf, authority, { ...leaf }, { ...authority }]) {
      for (const text of [inspect(shown, { depth: 9, showHidden: true }), JSON.stringify(shown)]) {
        assert.ok(!text.includes(secret));
        assert.doesNotMatch(text, /PRIVATE KEY/);
      }
    }
    assert.match(secret, /^[A-Za-z0-9+/]{64}$/);
  });
});
