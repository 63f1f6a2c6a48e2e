import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { inspect } from 'node:util';
import type { ViolationId } from '@sallyport/core';
import type { PemMaterial } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { buildCertificate, generateKeys } from '@sallyport/pki/raw';
import { openssl, requireOpenssl } from '../../../support/openssl.js';
import { materialFrom, materialOf, partner, pemOf, prod, violationsOf, web } from './support.js';

const HOUR_MS = 3_600_000;
const issued = prod.issue({ id: web });
const valid = pemOf(issued, prod);

function found(pem: PemMaterial, now?: number): [ViolationId, string][] {
  return violationsOf(pem, now).map(({ id, path }) => [id, path]);
}

function encrypted(pem: string, passphrase: string): string {
  return createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString();
}

describe('TLS material', () => {
  it('holds what a valid set says', () => {
    const material = materialFrom(valid);

    assert.equal(material.identity.toString(), web);
    assert.equal(material.leaf.serialNumber, issued.serial);
    assert.equal(material.notAfter, issued.notAfter);
    assert.ok(material.notBefore < Date.now());
    assert.deepEqual([...material.bundles.keys()], ['prod.acme']);
    assert.deepEqual(material.crls, []);
    assert.equal(createPrivateKey(material.privateKey()).asymmetricKeyType, 'ec');
  });

  it('T75 shows its private key in no inspection and no JSON', () => {
    const material = materialFrom(valid);
    const secret = issued.privateKeyPem.split('\n')[1] ?? '';

    const shown = inspect(material, { depth: 9, showHidden: true }) + JSON.stringify(material);

    assert.ok(secret.length > 20 && !shown.includes(secret) && !shown.includes('PRIVATE'));
  });

  for (const algorithm of ['P-256', 'P-384', 'Ed25519'] as const) {
    it(`accepts a chain of ${algorithm} through an intermediate, in any order after the leaf`, () => {
      const root = createAuthority({ trustDomain: 'prod.acme', algorithm });
      const upper = root.intermediate({ algorithm, pathLength: 1 });
      const lower = upper.intermediate({ algorithm });
      const pem = pemOf(lower.issue({ id: web, algorithm }), root);
      const [leaf, ...issuers] = pem.cert.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----\n/g) ?? [];

      assert.equal(issuers.length, 2);
      assert.deepEqual(found(pem), []);
      assert.deepEqual(found({ ...pem, cert: [leaf, ...issuers.reverse()].join('') }), []);
    });
  }

  it('accepts an encrypted key with its passphrase', () => {
    const key = encrypted(valid.key, 'canary');
    const material = materialFrom({ ...valid, key, passphrase: 'canary' });
    assert.match(material.privateKey(), /BEGIN PRIVATE KEY/);
  });

  const invalid: [string, Partial<PemMaterial>, [ViolationId, string][]][] = [
    ['a certificate file without a certificate', { cert: 'nothing' }, [['tls-material-invalid', 'tls.cert']]],
    ['a damaged certificate', { cert: valid.cert.replace('MII', 'MIJ') }, [['tls-material-invalid', 'tls.cert']]],
    ['a private key in the certificate file', { cert: valid.cert + valid.key }, [['tls-material-invalid', 'tls.cert']]],
    ['issuers before the leaf', { cert: prod.bundlePem + valid.cert }, [['tls-material-invalid', 'tls.cert']]],
    [
      'a leaf among the issuers',
      { cert: valid.cert + prod.issue({ id: web }).certificatePem },
      [['tls-material-invalid', 'tls.cert']],
    ],
    ['a key file without a key', { key: valid.cert }, [['tls-material-invalid', 'tls.key']]],
    [
      'an encrypted key without a passphrase',
      { key: encrypted(valid.key, 'right') },
      [['tls-material-invalid', 'tls.key']],
    ],
    [
      'a wrong passphrase',
      { key: encrypted(valid.key, 'right'), passphrase: 'wrong' },
      [['tls-material-invalid', 'tls.key']],
    ],
    ['a CA file with a leaf in it', { ca: prod.bundlePem + valid.cert }, [['tls-material-invalid', 'tls.ca']]],
    [
      'T72 a key of another certificate',
      { key: prod.issue({ id: web }).privateKeyPem },
      [['tls-key-mismatch', 'tls.key']],
    ],
    ['T72 an empty CA', { ca: '' }, [['tls-ca-empty', 'tls.ca']]],
    [
      'an empty bundle of another domain',
      { bundles: { 'partner.example': '\n' } },
      [['tls-ca-empty', 'tls.bundles["partner.example"]']],
    ],
    [
      'a CA that did not issue the certificate',
      { ca: createAuthority({ trustDomain: 'prod.acme' }).bundlePem },
      [['tls-certificate-untrusted', 'tls.cert']],
    ],
    [
      'a second bundle for the own domain',
      { bundles: { 'prod.acme': prod.bundlePem } },
      [['option-invalid', 'tls.bundles']],
    ],
    [
      'a bundle under an id instead of a name',
      { bundles: { 'spiffe://partner.example': partner.bundlePem } },
      [['option-invalid', 'tls.bundles["spiffe://partner.example"]']],
    ],
    [
      'a bundle under the name of another domain',
      { bundles: { 'else.example': partner.bundlePem } },
      [['tls-material-invalid', 'tls.bundles["else.example"]']],
    ],
  ];
  for (const [what, more, violations] of invalid) {
    it(`${/^T\d+ /.exec(what)?.[0] ?? ''}refuses ${what.replace(/^T\d+ /, '')}`, () =>
      assert.deepEqual(found({ ...valid, ...more }), violations));
  }

  it('tells a missing passphrase from a wrong one', () => {
    const key = encrypted(valid.key, 'right');
    assert.match(violationsOf({ ...valid, key })[0]?.problem ?? '', /give its passphrase/);
    assert.match(violationsOf({ ...valid, key, passphrase: 'wrong' })[0]?.problem ?? '', /passphrase is wrong/);
  });

  it('refuses a chain without its intermediate', () => {
    const pem = pemOf(prod.intermediate().issue({ id: web }), prod);
    const leaf = new X509Certificate(pem.cert).toString();
    assert.deepEqual(found({ ...pem, cert: leaf }), [['tls-certificate-untrusted', 'tls.cert']]);
  });

  it('refuses an issuer that only has the right name', () => {
    const forger = createAuthority({ trustDomain: 'prod.acme' });
    assert.deepEqual(found(pemOf(forger.issue({ id: web }), prod)), [['tls-certificate-untrusted', 'tls.cert']]);
  });

  it('T72 refuses an expired certificate and one that is not valid yet', () => {
    const late = Date.now() + 2 * HOUR_MS;
    const early = Date.now() - 2 * HOUR_MS;
    assert.deepEqual(found(valid, late), [['tls-certificate-expired', 'tls.cert']]);
    assert.deepEqual(
      found(
        pemOf(
          createAuthority({ trustDomain: 'prod.acme', notBefore: 0, ttlMs: 100 * 365 * 24 * HOUR_MS }).issue({
            id: web,
          }),
          prod,
        ),
        early,
      ).filter(([id]) => id !== 'tls-certificate-untrusted'),
      [['tls-certificate-not-yet-valid', 'tls.cert']],
    );
  });

  it('refuses a chain through an expired CA', () => {
    const expired = createAuthority({ trustDomain: 'prod.acme', notBefore: Date.now() - 2 * HOUR_MS, ttlMs: HOUR_MS });
    const leaf = expired.issueRaw({ id: web, notBefore: Date.now() - HOUR_MS, notAfter: Date.now() + HOUR_MS });
    assert.deepEqual(found(pemOf(leaf, expired)), [['tls-certificate-expired', 'tls.ca']]);
  });

  it('refuses a certificate that is no X.509-SVID and says which rule it breaks', () => {
    const [violation] = violationsOf(pemOf(prod.issueRaw({ id: web, extendedKeyUsage: ['serverAuth'] }), prod));
    assert.equal(violation?.id, 'identity-invalid');
    assert.match(violation?.problem ?? '', /lacks clientAuth/);
  });

  it('refuses weak keys', () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const { publicKey: curve } = generateKeyPairSync('ec', { namedCurve: 'secp256k1' });
    for (const subjectPublicKey of [publicKey, curve]) {
      const pem = pemOf(prod.issueRaw({ id: web, subjectPublicKey }), prod);
      assert.deepEqual(found({ ...pem, key: valid.key })[0], ['tls-key-weak', 'tls.cert']);
    }
  });

  const unusable: [string, string, number][] = [
    ['a key of an algorithm that nobody knows', '06072a8648ce3d0201', 8],
    ['a key on a curve that nobody knows', '06082a8648ce3d030107', 9],
    ['a key that is no point of its curve', '06082a8648ce3d030107', 18],
    ['version 1', 'a003020102', 4],
  ];
  for (const [what, near, offset] of unusable) {
    it(`T72 refuses a CA certificate with ${what}, instead of failing over it`, () => {
      const der = Buffer.from(new X509Certificate(prod.bundlePem).raw);
      const at = der.indexOf(near, 'hex') + offset;
      der.writeUInt8(der.readUInt8(at) ^ 0x55, at);
      const ca = `${prod.bundlePem}-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;

      for (const crl of [[], [prod.crl({ revoked: [] })]]) {
        assert.deepEqual(found({ ...valid, ca, crl })[0], ['tls-material-invalid', 'tls.ca']);
      }
    });
  }

  describe('from openssl', () => {
    requireOpenssl();

    it('accepts a key in SEC1 form with parameters before it', () => {
      const key = openssl(['ecparam', '-name', 'prime256v1', '-genkey']).stdout;
      assert.match(key, /EC PARAMETERS[\s\S]*BEGIN EC PRIVATE KEY/);
      assert.deepEqual(found({ ...valid, key }), [['tls-key-mismatch', 'tls.key']]);
    });

    it('accepts files with text between the blocks', () => {
      const cert = openssl(['x509', '-text'], { input: valid.cert }).stdout;
      assert.match(cert, /Subject Alternative Name/);
      assert.deepEqual(found({ ...valid, cert }), []);
    });

    it('refuses a certificate with trust settings, which would be dropped', () => {
      const ca = openssl(['x509', '-trustout', '-addreject', 'clientAuth'], { input: prod.bundlePem }).stdout;
      assert.match(ca, /BEGIN TRUSTED CERTIFICATE/);
      assert.deepEqual(found({ ...valid, ca }), [['tls-material-invalid', 'tls.ca']]);
    });
  });
});

describe('revocation lists of TLS material', () => {
  const intermediate = prod.intermediate();
  const leaf = pemOf(intermediate.issue({ id: web }), prod);

  it('are kept one an entry, and name what they revoke', () => {
    const revoked = intermediate.issue({ id: web });
    const lists = prod.crl({ revoked: [] }) + intermediate.crl({ revoked: [revoked.serial] });

    const material = materialFrom({ ...leaf, crl: [lists] });

    assert.equal(material.crls.length, 2);
    assert.equal(material.revoked.size, 1);
    assert.match([...material.revoked][0] ?? '', new RegExp(`^[0-9a-f]{64}/${revoked.serial}$`));
  });

  const forger = createAuthority({ trustDomain: 'prod.acme' });
  const HOUR_AGO = Date.now() - HOUR_MS;
  const refused: [string, () => string[], RegExp][] = [
    ['without one of the root', () => [intermediate.crl({ revoked: [] })], /no list of the issuer .*root/],
    ['without one of the intermediate', () => [prod.crl({ revoked: [] })], /no list of the issuer .*intermediate/],
    [
      'with an expired one',
      () => [
        prod.crl({ revoked: [] }),
        intermediate.crl({ revoked: [], thisUpdate: HOUR_AGO - HOUR_MS, nextUpdate: HOUR_AGO }),
      ],
      /past its next update/,
    ],
    [
      'with one from the future',
      () => [prod.crl({ revoked: [] }), intermediate.crl({ revoked: [], thisUpdate: Date.now() + HOUR_MS })],
      /not valid yet/,
    ],
    [
      'with a forged one',
      () => [prod.crl({ revoked: [] }), intermediate.crl({ revoked: [] }), forger.crl({ revoked: [] })],
      /number 3 is not signed by/,
    ],
    [
      'with a damaged one',
      () => [prod.crl({ revoked: [] }).replace('\nMI', '\nMJ'), intermediate.crl({ revoked: [] })],
      /number 1 is damaged/,
    ],
    [
      'with a file that holds none',
      () => [prod.crl({ revoked: [] }), intermediate.crl({ revoked: [] }), prod.bundlePem],
      /no revocation list in it/,
    ],
    ['with an empty file', () => [''], /no revocation list in it/],
  ];
  for (const [what, lists, problem] of refused) {
    it(`are refused ${what}`, () => {
      const violations = violationsOf({ ...leaf, crl: lists() });
      assert.ok(violations.every(({ id, path }) => id === 'tls-crl-invalid' && path === 'tls.crl'));
      assert.ok(
        violations.some((v) => problem.test(v.problem)),
        JSON.stringify(violations),
      );
    });
  }

  it('are refused without one of an issuer that has no name', () => {
    const root = generateKeys('P-256');
    const workload = generateKeys('P-256');
    const notAfter = Date.now() + HOUR_MS;
    const { pem: ca } = buildCertificate({
      subjectPublicKey: root.publicKey,
      issuer: { key: root.privateKey },
      notAfter,
      basicConstraints: { ca: true },
      keyUsage: { bits: ['keyCertSign', 'cRLSign'] },
    });
    const { pem: cert } = buildCertificate({
      subjectPublicKey: workload.publicKey,
      issuer: { key: root.privateKey, certificate: ca },
      notAfter,
      subjectAltName: { names: [{ uri: web }] },
    });
    const key = workload.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const pem = { cert, key, ca, bundles: {}, crl: [] };

    assert.deepEqual(found(pem), []);
    assert.match(
      violationsOf({ ...pem, ca: ca + prod.bundlePem, crl: [prod.crl({ revoked: [] })] })[0]?.problem ?? '',
      /no list of the issuer with the certificate [0-9A-F]+/,
    );
  });

  it('are not needed when none is given', () => {
    assert.deepEqual(materialOf().crls, []);
  });
});
