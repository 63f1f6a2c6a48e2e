import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { createAuthority, createCsr, PkiError, parseCsr } from '@sallyport/pki';
import { openssl, requireOpenssl } from '../../support/openssl.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { algorithms, refusal, verifyStrictly, web } from './support.js';

describe('a certificate request, judged by openssl', () => {
  requireOpenssl();

  for (const algorithm of algorithms) {
    it(`of an ${algorithm} key proves possession and asks for the id`, () => {
      const { csrPem } = createCsr({ id: web, algorithm });

      const verdict = openssl(['req', '-verify', '-noout', '-text'], { input: csrPem });

      assert.equal(verdict.status, 0, verdict.stderr);
      assert.match(verdict.stderr, /verify OK/);
      assert.match(verdict.stdout, /URI:spiffe:\/\/prod\.acme\/svc\/web/);
    });

    it(`of an ${algorithm} key becomes a leaf that verifies strictly`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme', algorithm }).intermediate({ algorithm });
      const { csrPem } = createCsr({ id: web, algorithm });

      const { certificatePem } = authority.issueForCsr(csrPem, { id: web });

      const verdict = verifyStrictly({ certificatePem, bundlePem: authority.bundlePem });
      assert.equal(verdict.status, 0, verdict.stderr);
    });
  }

  for (const [kind, key] of [
    ['RSA of 2048 bits', ['rsa:2048']],
    ['P-256', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']],
    ['P-384', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']],
    ['Ed25519', ['ed25519']],
  ] as const) {
    it(`that openssl made with ${kind} is accepted`, () => {
      const csrPem = opensslRequest(key);

      const { certificatePem } = createAuthority({ trustDomain: 'prod.acme' }).issueForCsr(csrPem, { id: web });

      assert.ok(new X509Certificate(certificatePem).publicKey.equals(parseCsr(csrPem).publicKey));
    });
  }

  for (const [kind, key] of [
    ['RSA of 1024 bits', ['rsa:1024']],
    ['RSA with exponent 3', ['rsa:2048', '-pkeyopt', 'rsa_keygen_pubexp:3']],
    ['RSA-PSS', ['rsa-pss', '-pkeyopt', 'rsa_keygen_bits:2048']],
    ['secp256k1', ['ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1']],
    ['P-521', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-521']],
    ['Ed448', ['ed448']],
  ] as const) {
    it(`that openssl made with ${kind} is refused as weak`, () => {
      const csrPem = opensslRequest(key);

      assert.throws(() => parseCsr(csrPem), refusal('key-weak'));
    });
  }

  it('that is signed with SHA-1 is refused', () => {
    const csrPem = opensslRequest(['rsa:2048'], '-sha1');

    assert.throws(() => parseCsr(csrPem), refusal('csr-signature'));
  });

  it('has no say in the names of the leaf', () => {
    const csrPem = opensslRequest(
      ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
      '-addext',
      'subjectAltName=DNS:evil.acme',
    );

    const { certificatePem } = createAuthority({ trustDomain: 'prod.acme' }).issueForCsr(csrPem, { id: web });

    const certificate = new X509Certificate(certificatePem);
    assert.equal(certificate.subjectAltName, `URI:${web}`);
    assert.doesNotMatch(certificate.subject ?? '', /evil/);
  });
});

describe('a certificate request', () => {
  it('keeps the key, which belongs to it, out of sight', () => {
    const pending = createCsr({ id: web });

    const publicKey = createPublicKey(createPrivateKey(pending.privateKeyPem));
    assert.ok(parseCsr(pending.csrPem).publicKey.equals(publicKey));
    assert.doesNotMatch(inspect(pending) + JSON.stringify(pending), /PRIVATE KEY/);
  });

  it('tells serial and end of what it became', () => {
    const { csrPem } = createCsr({ id: web });

    const issued = createAuthority({ trustDomain: 'prod.acme' }).issueForCsr(csrPem, { id: web, ttlMs: 600_000 });

    const certificate = new X509Certificate(issued.certificatePem);
    assert.equal(issued.serial, certificate.serialNumber);
    assert.equal(issued.notAfter, Date.parse(certificate.validTo));
  });

  it('is refused when the id granted belongs to another trust domain', () => {
    const { csrPem } = createCsr({ id: web });
    const authority = createAuthority({ trustDomain: 'dev.acme' });

    assert.throws(() => authority.issueForCsr(csrPem, { id: web }), refusal('id-foreign'));
  });

  it('is not made for something that is no workload id', () => {
    assert.throws(() => createCsr({ id: 'spiffe://prod.acme' }), refusal('id-malformed'));
  });

  it('is refused when the signature was tampered with', () => {
    const der = derOf(createCsr({ id: web, algorithm: 'Ed25519' }).csrPem);
    der.writeUInt8(der.readUInt8(der.length - 40) ^ 1, der.length - 40);

    assert.throws(() => parseCsr(pemOf(der)), refusal('csr-signature'));
  });

  it('is refused when its key was exchanged', () => {
    const mine = derOf(createCsr({ id: web, algorithm: 'Ed25519' }).csrPem);
    const theirs = createPublicKey(createPrivateKey(createCsr({ id: web, algorithm: 'Ed25519' }).privateKeyPem));
    const own = parseCsr(pemOf(mine)).publicKey;
    const swapped = mine.toString('hex').replace(spki(own), spki(theirs));

    assert.throws(() => parseCsr(pemOf(Buffer.from(swapped, 'hex'))), refusal('csr-signature'));
  });

  it('is refused, with a code, whichever single byte is changed', () => {
    const der = derOf(createCsr({ id: web, algorithm: 'Ed25519' }).csrPem);

    for (let index = 0; index < der.length; index++) {
      const changed = Buffer.from(der);
      changed.writeUInt8(changed.readUInt8(index) ^ 0x01, index);
      assert.throws(() => parseCsr(pemOf(changed)), PkiError, `byte ${index}`);
    }
  });

  it('is refused wherever it is cut off', () => {
    const der = derOf(createCsr({ id: web }).csrPem);

    for (let length = 0; length < der.length; length++) {
      assert.throws(() => parseCsr(pemOf(der.subarray(0, length))), refusal('csr-malformed'), `${length} bytes`);
    }
  });

  for (const [what, csrPem] of [
    ['is empty', ''],
    ['is garbage', 'garbage'],
    ['is a PEM block of garbage', pemOf(Buffer.from('garbage'))],
    ['has bytes after its end', pemOf(Buffer.concat([derOf(createCsr({ id: web }).csrPem), Buffer.of(0)]))],
    ['is two requests', createCsr({ id: web }).csrPem.repeat(2)],
    ['is nested without end', pemOf(Buffer.from('3080'.repeat(4000), 'hex'))],
    ['is too long', pemOf(Buffer.alloc(20_000))],
  ] as const) {
    it(`is refused when it ${what}`, () => {
      assert.throws(() => parseCsr(csrPem), refusal('csr-malformed'));
    });
  }
});

/** A request that the openssl command made, with a subject that no authority should repeat. */
function opensslRequest(newKey: readonly string[], ...args: string[]): string {
  using folder = temporaryFolder();
  const keyPath = join(folder.path, 'key.pem');
  const subject = ['-subj', '/CN=evil.acme'];
  const made = openssl(['req', '-new', '-nodes', '-newkey', ...newKey, '-keyout', keyPath, ...subject, ...args]);
  assert.equal(made.status, 0, made.stderr);
  return made.stdout;
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');
}

function pemOf(der: Buffer): string {
  const lines = der.toString('base64').replace(/.{64}/g, '$&\n');
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines}\n-----END CERTIFICATE REQUEST-----\n`;
}

function spki(key: ReturnType<typeof createPublicKey>): string {
  return key.export({ type: 'spki', format: 'der' }).toString('hex');
}
