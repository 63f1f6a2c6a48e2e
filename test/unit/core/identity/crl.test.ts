import assert from 'node:assert/strict';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { parseCrl, readProfile, verifyCrl } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { mutations } from '../../../support/mutations.js';

const authority = createAuthority({ trustDomain: 'prod.acme' });

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
}

function keyOf(pem: string) {
  return createPublicKey(pem);
}

/** Replaces the one occurrence of `from`, which keeps its length. */
function patched(der: Buffer, from: string, to: string): Buffer {
  const hex = der.toString('hex');
  assert.equal(hex.split(from).length, 2, `${from} occurs once`);
  assert.equal(from.length, to.length);
  return Buffer.from(hex.replace(from, to), 'hex');
}

describe('revocation list', () => {
  it('is parsed into what it says', () => {
    const leaf = new X509Certificate(authority.issue({ id: 'spiffe://prod.acme/svc/web' }).certificatePem);
    const nextUpdate = Date.UTC(2049, 11, 31);
    const thisUpdate = Date.UTC(2026, 6, 31, 12);
    const revoked = [leaf.serialNumber, { serial: '0A', reason: 'keyCompromise' as const }, 'FF00'];

    const crl = parseCrl(derOf(authority.crl({ revoked, number: 300, thisUpdate, nextUpdate })));

    assert.deepEqual(crl.revokedSerials, [leaf.serialNumber, '0A', 'FF00']);
    assert.equal(crl.number, '012C');
    assert.equal(crl.thisUpdate, thisUpdate);
    assert.equal(crl.nextUpdate, nextUpdate);
    assert.deepEqual(
      Buffer.from(crl.issuerDer),
      Buffer.from(readProfile(new X509Certificate(authority.certificatePem).raw).subject),
    );
  });

  it('may revoke nobody, and may last beyond 2050', () => {
    const crl = parseCrl(derOf(authority.crl({ revoked: [], nextUpdate: Date.UTC(2051, 0, 1) })));

    assert.deepEqual(crl.revokedSerials, []);
    assert.equal(crl.nextUpdate, Date.UTC(2051, 0, 1));
  });

  for (const algorithm of ['P-256', 'P-384', 'Ed25519'] as const) {
    it(`is verified with the key of its issuer and no other (${algorithm})`, () => {
      const issuer = createAuthority({ trustDomain: 'prod.acme', algorithm });
      const stranger = createAuthority({ trustDomain: 'prod.acme', algorithm });

      const crl = parseCrl(derOf(issuer.crl({ revoked: ['0A'] })));

      assert.equal(verifyCrl(crl, keyOf(issuer.certificatePem)), true);
      assert.equal(verifyCrl(crl, keyOf(stranger.certificatePem)), false);
    });
  }

  it('is not verified by a key of another kind, or with an algorithm we do not know', () => {
    const edwards = createAuthority({ trustDomain: 'prod.acme', algorithm: 'Ed25519' });
    const crl = parseCrl(derOf(authority.crl({ revoked: [] })));

    assert.equal(verifyCrl(crl, keyOf(edwards.certificatePem)), false);
    assert.equal(
      verifyCrl({ ...crl, signatureAlgorithm: '1.2.840.113549.1.1.5' }, keyOf(authority.certificatePem)),
      false,
    );
  });

  it('is not verified once a serial has been removed from it', () => {
    const crl = parseCrl(derOf(authority.crl({ revoked: ['0BADCAFE'] })));
    const tbs = patched(Buffer.from(crl.tbs), '0badcafe', '0badcaff');

    assert.equal(verifyCrl({ ...crl, tbs }, keyOf(authority.certificatePem)), false);
  });

  it('is refused when it is of version 1', () => {
    assert.throws(() => parseCrl(listWith({ version: '020100' })), /version 2/);
  });

  it('is refused when it names two signature algorithms', () => {
    assert.throws(() => parseCrl(listWith({ signedWith: '300a06082a8648ce3d040303' })), /two signature algorithms/);
  });

  it('is refused when a critical extension changes its meaning', () => {
    const der = listWith({ extensions: '300f 300d 0603551d1b 0101ff 0403 020101' });

    assert.throws(() => parseCrl(der), /critical extension 2\.5\.29\.27/);
  });

  it('is refused when an entry has a critical extension', () => {
    const der = listWith({
      revoked: '3022 02010a 170d3236303733313132303030305a 300e 300c 0603551d1d 0101ff 0402 3000',
    });

    assert.throws(() => parseCrl(der), /critical extension 2\.5\.29\.29/);
  });

  it('is refused without nextUpdate, because it would last for ever', () => {
    assert.throws(() => parseCrl(listWith({ nextUpdate: '' })), /no nextUpdate/);
  });

  it('is read when nothing is wrong with it, even if others made it', () => {
    assert.deepEqual(parseCrl(listWith({})).revokedSerials, []);
  });

  it('throws nothing but DerError on 10,000 mutations', () => {
    const original = derOf(authority.crl({ revoked: ['0A', { serial: '0B', reason: 'superseded' }] }));
    const key = keyOf(authority.certificatePem);

    for (const der of mutations(original, { count: 10_000, seed: 0xc71 })) {
      try {
        const crl = parseCrl(der);
        assert.ok(Number.isFinite(crl.nextUpdate));
      } catch (error) {
        assert.equal((error as Error).name, 'DerError');
      }
    }
    assert.ok(verifyCrl(parseCrl(original), key));
  });
});

interface ListParts {
  readonly version?: string;
  readonly signedWith?: string;
  readonly nextUpdate?: string;
  readonly revoked?: string;
  readonly extensions?: string;
}

const ECDSA_SHA256 = '300a06082a8648ce3d040302';

/** An unsigned list, piece by piece in hexadecimal. */
function listWith(parts: ListParts): Buffer {
  const { version = '020101', signedWith = ECDSA_SHA256, nextUpdate = '170d3236303830313132303030305a' } = parts;
  const tbs = sequence(
    version,
    ECDSA_SHA256,
    '3000',
    '170d3236303733313132303030305a',
    nextUpdate,
    parts.revoked === undefined ? '' : sequence(parts.revoked),
    parts.extensions === undefined ? '' : element('a0', parts.extensions),
  );
  return Buffer.from(sequence(tbs, signedWith, '030100'), 'hex');
}

function sequence(...parts: string[]): string {
  return element('30', parts.join(''));
}

function element(tag: string, content: string): string {
  const hex = content.replaceAll(' ', '');
  const length = hex.length / 2;
  assert.ok(length < 0x100);
  return `${tag}${length < 0x80 ? '' : '81'}${length.toString(16).padStart(2, '0')}${hex}`;
}
