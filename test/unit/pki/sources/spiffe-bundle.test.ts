import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { createAuthority, formatSpiffeBundle, parseSpiffeBundle } from '@sallyport/pki';

describe('the bundle of a trust domain as JSON', () => {
  const authority = createAuthority({ trustDomain: 'a.test' });
  const certificate = new X509Certificate(authority.certificatePem);
  const key = {
    ...certificate.publicKey.export({ format: 'jwk' }),
    use: 'x509-svid',
    x5c: [certificate.raw.toString('base64')],
  };

  for (const algorithm of ['P-256', 'P-384', 'Ed25519'] as const) {
    it(`is read as it was written (${algorithm})`, () => {
      const { bundlePem } = createAuthority({ trustDomain: 'a.test', algorithm });

      const read = parseSpiffeBundle(formatSpiffeBundle({ bundlePem, sequence: 7n, refreshHintSeconds: 60 }), 'a.test');

      assert.deepEqual(read, { bundlePem, sequence: 7n, refreshHintSeconds: 60 });
    });
  }

  it('holds every authority of a domain that changes its own', () => {
    const bundlePem = authority.bundlePem + createAuthority({ trustDomain: 'a.test' }).bundlePem;

    const written = JSON.parse(formatSpiffeBundle({ bundlePem }));

    assert.equal(written.keys.length, 2);
    assert.deepEqual(Object.keys(written), ['keys']);
    assert.equal(parseSpiffeBundle(JSON.stringify(written), 'a.test').bundlePem, bundlePem);
  });

  for (const sequence of [0n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
    it(`keeps the sequence number ${sequence} exactly`, () => {
      const text = formatSpiffeBundle({ bundlePem: authority.bundlePem, sequence });

      assert.ok(text.includes(`"spiffe_sequence":${sequence},`));
      assert.equal(parseSpiffeBundle(text, 'a.test').sequence, sequence);
    });
  }

  it('takes the sequence number of the set, not one that is hidden elsewhere', () => {
    const hidden = { ...key, spiffe_sequence: 99, note: '"spiffe_sequence": 98, {' };
    const text = `{"note":"\\"spiffe_sequence\\":97","keys":[${JSON.stringify(hidden)}],"spiffe_\\u0073equence" : 5 }`;

    assert.equal(parseSpiffeBundle(text, 'a.test').sequence, 5n);
  });

  it('ignores keys for other uses and of unknown kinds', () => {
    const keys = [
      { kty: 'EC', use: 'jwt-svid', kid: 'x' },
      { kty: 'quantum', use: 'x509-svid' },
      { use: 'x509-svid' },
      'none',
      key,
    ];

    assert.equal(parseSpiffeBundle(JSON.stringify({ keys }), 'a.test').bundlePem, authority.bundlePem);
  });

  const other = createAuthority({ trustDomain: 'a.test' });
  const foreign = createAuthority({ trustDomain: 'b.test' });
  const leaf = new X509Certificate(authority.issue({ id: 'spiffe://a.test/svc/web' }).certificatePem);
  const refused: Readonly<Record<string, readonly [string, RegExp]>> = {
    'is no JSON': ['{', /not JSON/],
    'is a list': ['[]', /not a JSON object/],
    'has no keys': ['{}', /no list of keys/],
    'has no key for X.509': ['{"keys":[]}', /no key for x509-svid/],
    'has a key without a certificate': [
      JSON.stringify({ keys: [{ ...key, x5c: undefined }] }),
      /exactly one certificate/,
    ],
    'has a key with a chain': [JSON.stringify({ keys: [{ ...key, x5c: [...key.x5c, ...key.x5c] }] }), /exactly one/],
    'has a damaged certificate': [JSON.stringify({ keys: [{ ...key, x5c: ['AAAA'] }] }), /damaged/],
    'has a key beside the certificate of another': [
      JSON.stringify({
        keys: [
          {
            ...new X509Certificate(other.certificatePem).publicKey.export({ format: 'jwk' }),
            use: 'x509-svid',
            x5c: key.x5c,
          },
        ],
      }),
      /not the one of its certificate/,
    ],
    'has a key that is none': [JSON.stringify({ keys: [{ ...key, x: 'AAAA' }] }), /not the one of its certificate/],
    'names a workload as an authority': [
      JSON.stringify({
        keys: [{ ...leaf.publicKey.export({ format: 'jwk' }), use: 'x509-svid', x5c: [leaf.raw.toString('base64')] }],
      }),
      /is no CA/,
    ],
    'belongs to another trust domain': [formatSpiffeBundle(foreign), /a CA of b\.test/],
    'counts in fractions': [`{"keys":[${JSON.stringify(key)}],"spiffe_sequence":1.5}`, /spiffe_sequence/],
    'counts in words': [`{"keys":[${JSON.stringify(key)}],"spiffe_sequence":"1"}`, /spiffe_sequence/],
    'counts below zero': [`{"keys":[${JSON.stringify(key)}],"spiffe_sequence":-1}`, /spiffe_sequence/],
    'wants to be asked in the past': [JSON.stringify({ keys: [key], spiffe_refresh_hint: -5 }), /spiffe_refresh_hint/],
  };
  for (const [what, [text, says]] of Object.entries(refused)) {
    it(`is refused when it ${what}`, () => {
      assert.throws(() => parseSpiffeBundle(text, 'a.test'), { name: 'TypeError', message: says });
    });
  }
});
