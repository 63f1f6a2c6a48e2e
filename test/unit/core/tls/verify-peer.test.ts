import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { TLSSocket } from 'node:tls';
import type { HandshakeRefusal } from '@sallyport/core';
import {
  clientTlsOptions,
  isRevoked,
  type PeerVerdict,
  presentedPeer,
  revocationKeyOf,
  serverTlsOptions,
  verifyPeer,
} from '@sallyport/core/spi';
import type { IssuedIdentity } from '@sallyport/pki';
import { anyName, materialFrom, materialOf, openDoor, partner, pemOf, prod, web } from './support.js';

const alone = materialOf();
const federated = materialOf(web, { bundles: { 'partner.example': partner.bundlePem } });

function presented({ certificatePem }: IssuedIdentity) {
  const [leaf, ...chain] = (certificatePem.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? []).map(
    (pem) => new X509Certificate(pem),
  );
  assert.ok(leaf);
  return { raw: leaf.raw, chain };
}

function reason(verdict: PeerVerdict): HandshakeRefusal | 'accepted' {
  return verdict.ok ? 'accepted' : verdict.reason;
}

describe('peer verification', () => {
  it('sums up an accepted peer', () => {
    const caller = prod.issue({ id: 'spiffe://prod.acme/svc/caller' });
    const verdict = verifyPeer(presented(caller), alone);

    assert.ok(verdict.ok);
    assert.equal(verdict.peer.id, 'spiffe://prod.acme/svc/caller');
    assert.equal(verdict.peer.serial, caller.serial);
    assert.equal(verdict.peer.notAfter, caller.notAfter);
  });

  it('T11 T12 T13 T16 T17 refuses a leaf that is no X.509-SVID', () => {
    const verdict = verifyPeer(presented(prod.issueRaw({ id: web, keyUsage: null })), alone);
    assert.equal(reason(verdict), 'invalid-svid');
    assert.equal(verdict.ok ? '' : verdict.peer, undefined);
  });

  it('refuses bytes that are no certificate', () => {
    assert.equal(reason(verifyPeer({ raw: Buffer.from('no certificate') }, alone)), 'invalid-svid');
  });

  it('T18 refuses an identity of a domain without a bundle, and names it', () => {
    const verdict = verifyPeer(presented(partner.issue({ id: 'spiffe://partner.example/svc/x' })), alone);
    assert.equal(reason(verdict), 'wrong-trust-domain');
    assert.equal(verdict.ok ? '' : verdict.peer, 'spiffe://partner.example/svc/x');
  });

  it('accepts identities of each domain from its own CA', () => {
    for (const identity of [
      prod.issue({ id: web }),
      partner.issue({ id: 'spiffe://partner.example/svc/x' }),
      partner.intermediate().issue({ id: 'spiffe://partner.example/svc/x' }),
    ]) {
      assert.equal(reason(verifyPeer(presented(identity), federated)), 'accepted');
    }
  });

  it("T18 refuses an identity of one domain that another domain's CA has signed", () => {
    for (const signer of [partner, partner.intermediate()]) {
      const forged = signer.issueRaw({ id: 'spiffe://prod.acme/svc/admin' });
      assert.equal(reason(verifyPeer(presented(forged), federated)), 'wrong-trust-domain');
    }
  });

  it('T18 refuses a chain that cannot be proven, because the issuers are hidden', () => {
    const { raw } = presented(prod.intermediate().issue({ id: web }));
    assert.equal(reason(verifyPeer({ raw }, federated)), 'wrong-trust-domain');
    assert.equal(reason(verifyPeer({ raw }, alone)), 'accepted');
  });

  it('T18 refuses a domain that is proven by an expired or revoked intermediate, which another CA may have revived', () => {
    const id = 'spiffe://prod.acme/svc/admin';
    const expired = prod.intermediate({ notBefore: Date.now() - 7_200_000, ttlMs: 3_600_000 });
    const revoked = prod.intermediate();
    const { serialNumber } = new X509Certificate(revoked.certificatePem);
    const material = materialOf(web, {
      bundles: { 'partner.example': partner.bundlePem },
      crl: [prod.crl({ revoked: [serialNumber] })],
    });

    assert.equal(reason(verifyPeer(presented(expired.issueRaw({ id })), federated)), 'wrong-trust-domain');
    assert.equal(reason(verifyPeer(presented(revoked.issue({ id })), material)), 'wrong-trust-domain');
    assert.equal(reason(verifyPeer(presented(prod.intermediate().issue({ id })), material)), 'accepted');
  });

  it('accepts a hidden chain if its intermediate stands in the bundle', () => {
    const intermediate = prod.intermediate();
    const material = materialFrom(
      pemOf(prod.issue({ id: web }), prod, {
        ca: prod.bundlePem + intermediate.certificatePem,
        bundles: { 'partner.example': partner.bundlePem },
      }),
    );
    const { raw } = presented(intermediate.issue({ id: web }));
    assert.equal(reason(verifyPeer({ raw }, material)), 'accepted');
  });

  it('holds a server to the domain whose bundle alone was trusted', () => {
    const { raw } = presented(prod.intermediate().issue({ id: web }));
    assert.equal(reason(verifyPeer({ raw, verifiedFor: 'prod.acme' }, federated)), 'accepted');
    assert.equal(reason(verifyPeer({ raw, verifiedFor: 'partner.example' }, federated)), 'wrong-trust-domain');
  });

  it('is not led astray by a crowd of certificates', () => {
    const crowd = Array.from({ length: 40 }, () => new X509Certificate(partner.intermediate().certificatePem));
    const forged = partner.issueRaw({ id: 'spiffe://prod.acme/svc/admin' });
    assert.equal(reason(verifyPeer({ ...presented(forged), chain: crowd }, federated)), 'wrong-trust-domain');
  });

  it('T06 refuses a peer whose certificate has expired since', () => {
    const caller = prod.issue({ id: web });
    assert.equal(reason(verifyPeer(presented(caller), alone, caller.notAfter)), 'expired');
    assert.equal(reason(verifyPeer(presented(caller), alone, caller.notAfter - 1)), 'accepted');
  });

  it('T08 refuses a peer on a revocation list', () => {
    const caller = prod.issue({ id: 'spiffe://prod.acme/svc/caller' });
    const material = materialOf(web, { crl: [prod.crl({ revoked: [caller.serial] })] });

    assert.equal(reason(verifyPeer(presented(caller), material)), 'revoked');
    assert.equal(reason(verifyPeer(presented(caller), alone)), 'accepted');
  });

  it('reads a leaf once, and asks each time what may have changed since', () => {
    const caller = presented(prod.issue({ id: 'spiffe://prod.acme/svc/returning' }));
    const first = verifyPeer(caller, alone);
    const again = verifyPeer(caller, alone);
    assert.ok(first.ok && again.ok);
    assert.equal(again.peer, first.peer);

    const revoking = materialOf(web, { crl: [prod.crl({ revoked: [first.peer.serial] })] });
    const elsewhere = materialOf('spiffe://partner.example/svc/x', {}, partner);

    assert.equal(reason(verifyPeer(caller, alone, first.peer.notAfter)), 'expired');
    assert.equal(reason(verifyPeer(caller, revoking)), 'revoked');
    assert.equal(reason(verifyPeer(caller, elsewhere)), 'wrong-trust-domain');
  });

  it('T08 does not revoke the same serial of another issuer', () => {
    const own = new X509Certificate(prod.issue({ id: web }).certificatePem);
    const other = prod.intermediate().issueRaw({ id: web, serial: own.serialNumber });
    const material = materialOf(web, { crl: [prod.crl({ revoked: [own.serialNumber] })] });

    assert.ok(isRevoked(material, revocationKeyOf(own)));
    assert.ok(!isRevoked(material, revocationKeyOf(new X509Certificate(other.certificatePem))));
  });

  it('T10 knows a revoked certificate whose issuer is written in another type of string, as OpenSSL does', () => {
    const { raw, serialNumber } = new X509Certificate(prod.issue({ id: web }).certificatePem);
    const material = materialOf(web, { crl: [prod.crl({ revoked: [serialNumber] })] });
    const der = Buffer.from(raw);
    const utf8 = Buffer.from('\x0c\x0eSallyport root');
    assert.ok(der.includes(utf8));
    der.writeUInt8(0x13, der.indexOf(utf8)); // PrintableString

    assert.ok(isRevoked(material, revocationKeyOf(new X509Certificate(der))));
  });

  it('T18 judges what a real connection shows', async () => {
    const door = await openDoor(serverTlsOptions(federated));
    try {
      for (const [identity, expected] of [
        [partner.issue({ id: 'spiffe://partner.example/svc/x' }), 'accepted'],
        [partner.issueRaw({ id: 'spiffe://prod.acme/svc/admin' }), 'wrong-trust-domain'],
      ] as const) {
        const { certificatePem: cert, privateKeyPem: key } = identity;
        const { server } = await door.knock({ ...anyName, ca: prod.bundlePem, cert, key });
        assert.ok(server instanceof TLSSocket);
        const shown = presentedPeer(server);
        assert.ok(shown);
        assert.equal(reason(verifyPeer(shown, federated)), expected);
      }
    } finally {
      await door.close();
    }
  });

  it('sees nothing on a connection without a certificate', async () => {
    const door = await openDoor({ ...serverTlsOptions(alone), requestCert: false });
    try {
      const { server } = await door.knock({ ...anyName, ...clientTlsOptions(alone, 'prod.acme') });
      assert.ok(server instanceof TLSSocket);
      assert.equal(presentedPeer(server), undefined);
    } finally {
      await door.close();
    }
  });
});
