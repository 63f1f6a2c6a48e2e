import assert from 'node:assert/strict';
import { createAuthority } from '@sallyport/pki';
import { openssl, requireOpenssl } from '../../support/openssl.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { algorithms, refusal, verifyStrictly, web } from './support.js';

const DAY_MS = 86_400_000;

describe('a revocation list, judged by openssl', () => {
  requireOpenssl();

  for (const algorithm of algorithms) {
    it(`of an ${algorithm} authority refuses a revoked leaf and lets the others pass`, () => {
      const root = createAuthority({ trustDomain: 'prod.acme', algorithm });
      const authority = root.intermediate({ algorithm });
      const revoked = authority.issue({ id: web });
      const valid = authority.issue({ id: web });
      const lists = authority.crl({ revoked: [revoked.serial] }) + root.crl({ revoked: [] });

      const ofRevoked = checkAgainst(lists, revoked.certificatePem, root.bundlePem);
      const ofValid = checkAgainst(lists, valid.certificatePem, root.bundlePem);

      assert.notEqual(ofRevoked.status, 0);
      assert.match(ofRevoked.stderr, /error 23 at 0 depth lookup: certificate revoked/);
      assert.equal(ofValid.status, 0, ofValid.stderr);
    });

    it(`of an ${algorithm} authority is signed by it, and by no other`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme', algorithm });
      const stranger = createAuthority({ trustDomain: 'prod.acme', algorithm });
      const crlPem = authority.crl({ revoked: [] });

      assert.match(signatureVerdict(crlPem, authority.certificatePem), /verify OK/);
      assert.doesNotMatch(signatureVerdict(crlPem, stranger.certificatePem), /verify OK/);
    });
  }

  it('refuses a revoked intermediate', () => {
    const root = createAuthority({ trustDomain: 'prod.acme' });
    const authority = root.intermediate();
    const leaf = authority.issue({ id: web });
    const serial = openssl(['x509', '-noout', '-serial'], { input: authority.certificatePem }).stdout.slice(7).trim();
    const lists = authority.crl({ revoked: [] }) + root.crl({ revoked: [{ serial, reason: 'cACompromise' }] });

    const verdict = checkAgainst(lists, leaf.certificatePem, root.bundlePem);

    assert.match(verdict.stderr, /error 23 at 1 depth lookup: certificate revoked/);
  });

  it('counts as expired after its next update', () => {
    const root = createAuthority({ trustDomain: 'prod.acme', notBefore: Date.now() - 3 * DAY_MS });
    const leaf = root.issue({ id: web });
    const now = Date.now();
    const crlPem = root.crl({ revoked: [], thisUpdate: now - 2 * DAY_MS, nextUpdate: new Date(now - DAY_MS) });

    const verdict = checkAgainst(crlPem, leaf.certificatePem, root.bundlePem);

    assert.match(verdict.stderr, /CRL has expired/);
  });

  it('says version, number, authority, reasons and dates', () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const revoked = [
      { serial: '7F01', reason: 'keyCompromise', date: Date.UTC(2026, 0, 2, 3, 4, 5) } as const,
      { serial: 'ff02', date: new Date(Date.UTC(2050, 0, 1)) },
    ];

    const text = openssl(['crl', '-noout', '-text'], { input: authority.crl({ revoked, number: 0x80 }) }).stdout;

    assert.match(text, /Version 2 \(0x1\)/);
    assert.match(text, /Authority Key Identifier/);
    assert.match(text, /X509v3 CRL Number: ?\s+128\n/);
    assert.match(text, /Serial Number: 7F01\s+Revocation Date: Jan {2}2 03:04:05 2026 GMT/);
    assert.match(text, /X509v3 CRL Reason Code: ?\s+Key Compromise/);
    assert.match(text, /Serial Number: FF02\s+Revocation Date: Jan {2}1 00:00:00 2050 GMT\n(?!\s+CRL entry)/);
  });

  it('has a number that grows', async () => {
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const first = numberOf(authority.crl({ revoked: [] }));
    await new Promise((resolve) => setTimeout(resolve, 2));

    const second = numberOf(authority.crl({ revoked: [] }));

    assert.ok(second > first, `${second} after ${first}`);
  });
});

describe('a revocation list', () => {
  for (const serial of ['', 'xyz', '0x10', '-1', 'AB:CD', 'F'.repeat(41)]) {
    it(`refuses the serial number ${JSON.stringify(serial)}`, () => {
      const authority = createAuthority({ trustDomain: 'prod.acme' });

      assert.throws(() => authority.crl({ revoked: [serial] }), refusal('serial-malformed'));
    });
  }
});

function checkAgainst(lists: string, certificatePem: string, bundlePem: string) {
  return verifyStrictly({ certificatePem, bundlePem }, '-crl_check_all', '-CRLfile', `@${lists}`);
}

function signatureVerdict(crlPem: string, certificatePem: string): string {
  using folder = temporaryFolder();
  const authority = folder.write('authority.pem', certificatePem);
  // -partial_chain is not known to `openssl crl`: the authority here is a root.
  return openssl(['crl', '-noout', '-verify', '-CAfile', authority], { input: crlPem }).stderr;
}

function numberOf(crlPem: string): bigint {
  const text = openssl(['crl', '-noout', '-crlnumber'], { input: crlPem }).stdout;
  return BigInt(text.replace('crlNumber=', '').trim());
}
