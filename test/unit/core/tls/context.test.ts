import assert from 'node:assert/strict';
import { once } from 'node:events';
import tls, { type ConnectionOptions, connect, TLSSocket } from 'node:tls';
import { clientTlsOptions, enrolmentServerTlsOptions, keyExchangeGroups, serverTlsOptions } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { start } from '../../../support/child.js';
import { requireOpenssl } from '../../../support/openssl.js';
import {
  anyName,
  type Door,
  materialFrom,
  materialOf,
  type Outcome,
  openDoor,
  partner,
  pemOf,
  prod,
  web,
} from './support.js';

const server = materialOf();
const client = materialOf('spiffe://prod.acme/svc/caller');

function reasons({ server, client }: Outcome): [string, string] {
  const name = (side: Outcome['client']) => (side instanceof TLSSocket ? 'connected' : side.reason);
  return [name(server), name(client)];
}

function toProd(material = client): ConnectionOptions {
  return { ...clientTlsOptions(material, 'prod.acme'), ...anyName };
}

describe('TLS context', () => {
  let door: Door;
  beforeEach(async () => {
    door = await openDoor(serverTlsOptions(server));
  });
  afterEach(() => door.close());

  it('connects two workloads of a trust domain by TLS 1.3', async () => {
    const { server: seen } = await door.knock(toProd());

    assert.ok(seen instanceof TLSSocket);
    assert.equal(seen.getProtocol(), 'TLSv1.3');
    assert.equal(seen.authorized, true);
  });

  it('T02 refuses TLS 1.2', async () => {
    const options = {
      ...anyName,
      ca: prod.bundlePem,
      maxVersion: 'TLSv1.2',
      cert: client.certificateChain,
      key: client.privateKey(),
    } as const;
    assert.deepEqual(reasons(await door.knock(options)), ['tls-version', 'tls-version']);
  });

  it('T02 refuses TLS 1.2 also after a rotation, and serves the new certificate', async () => {
    const options = {
      ...anyName,
      ca: prod.bundlePem,
      maxVersion: 'TLSv1.2',
      cert: client.certificateChain,
      key: client.privateKey(),
    } as const;
    const next = materialOf();
    door.server.setSecureContext(serverTlsOptions(next));

    assert.deepEqual(reasons(await door.knock(options)), ['tls-version', 'tls-version']);
    assert.deepEqual(reasons(await door.knock({ ...anyName, ca: prod.bundlePem })), [
      'no-certificate',
      'no-certificate',
    ]);
    const { client: connected } = await door.knock(toProd());
    assert.ok(connected instanceof TLSSocket);
  });

  it('T03 refuses a client without a certificate', async () => {
    assert.deepEqual(reasons(await door.knock({ ...anyName, ca: prod.bundlePem })), [
      'no-certificate',
      'no-certificate',
    ]);
  });

  it('T05 refuses a client of another authority', async () => {
    const stranger = materialOf(web, {}, createAuthority({ trustDomain: 'prod.acme' }));
    const options = { ...anyName, ca: prod.bundlePem, cert: stranger.certificateChain, key: stranger.privateKey() };
    assert.equal(reasons(await door.knock(options))[0], 'untrusted-issuer');
  });

  it('T20 refuses a server of another authority', async () => {
    const stranger = materialOf(web, {}, createAuthority({ trustDomain: 'prod.acme' }));
    assert.equal(reasons(await door.knock(toProd(stranger)))[1], 'untrusted-issuer');
  });

  it('keeps the check of the host name unless the caller replaces it', async () => {
    const { client: seen } = await door.knock(clientTlsOptions(client, 'prod.acme'));
    assert.ok(!(seen instanceof TLSSocket));
    assert.equal(seen.detail, 'ERR_TLS_CERT_ALTNAME_INVALID');
  });

  it('T09 resumes no session', async () => {
    const first = connect({ host: '127.0.0.1', port: door.port, ...toProd() });
    const [session] = (await once(first, 'session')) as [Buffer];
    first.destroy();

    // The server hands out tickets all the same, but keeps nothing that they could stand for.
    const again = connect({ host: '127.0.0.1', port: door.port, ...toProd(), session });
    await once(again, 'data');

    assert.equal(again.isSessionReused(), false);
    again.destroy();
  });

  it('T18 does not trust the CA of one domain on a connection to another', async () => {
    const federated = materialFrom(
      pemOf(prod.issue({ id: web }), prod, { bundles: { 'partner.example': partner.bundlePem } }),
    );
    const partnerDoor = await openDoor(
      serverTlsOptions(
        materialOf('spiffe://partner.example/svc/x', { bundles: { 'prod.acme': prod.bundlePem } }, partner),
      ),
    );
    try {
      const meantForProd = await partnerDoor.knock({ ...clientTlsOptions(federated, 'prod.acme'), ...anyName });
      const meantForPartner = await partnerDoor.knock({
        ...clientTlsOptions(federated, 'partner.example'),
        ...anyName,
      });

      assert.equal(reasons(meantForProd)[1], 'untrusted-issuer');
      assert.deepEqual(reasons(meantForPartner), ['connected', 'connected']);
    } finally {
      await partnerDoor.close();
    }
  });

  it('refuses to make a context for a domain without a bundle', () => {
    assert.throws(() => clientTlsOptions(client, 'else.example'), RangeError);
  });

  it('is built once for each generation and domain', () => {
    assert.equal(
      clientTlsOptions(client, 'prod.acme').secureContext,
      clientTlsOptions(client, 'prod.acme').secureContext,
    );
    assert.notEqual(
      clientTlsOptions(client, 'prod.acme').secureContext,
      clientTlsOptions(server, 'prod.acme').secureContext,
    );
    assert.equal(serverTlsOptions(server), serverTlsOptions(server));
  });

  describe('with revocation lists', () => {
    const caller = prod.issue({ id: 'spiffe://prod.acme/svc/caller' });
    const asCaller = toProd(materialFrom(pemOf(caller, prod)));

    async function withLists(revoked: string[]): Promise<Outcome> {
      door.server.setSecureContext(serverTlsOptions(materialOf(web, { crl: [prod.crl({ revoked })] })));
      return await door.knock(asCaller);
    }

    it('T08 refuses a revoked certificate', async () => {
      assert.equal(reasons(await withLists([caller.serial]))[0], 'revoked');
    });

    it('accepts one that is not on the list', async () => {
      assert.deepEqual(reasons(await withLists(['0A'])), ['connected', 'connected']);
    });

    it('T08 refuses a revoked certificate by the second list as well', async () => {
      const intermediate = prod.intermediate();
      const revoked = intermediate.issue({ id: 'spiffe://prod.acme/svc/caller' });
      const lists = prod.crl({ revoked: [] }) + intermediate.crl({ revoked: [revoked.serial] });
      door.server.setSecureContext(
        serverTlsOptions(materialFrom(pemOf(intermediate.issue({ id: web }), prod, { crl: [lists] }))),
      );

      assert.equal(reasons(await door.knock(toProd(materialFrom(pemOf(revoked, prod)))))[0], 'revoked');
    });

    it('fails closed for an issuer that has no list', async () => {
      door.server.setSecureContext(serverTlsOptions(materialOf(web, { crl: [prod.crl({ revoked: [] })] })));
      const other = materialFrom(pemOf(prod.intermediate().issue({ id: 'spiffe://prod.acme/svc/caller' }), prod));

      assert.equal(reasons(await door.knock(toProd(other)))[0], 'revocation-unknown');
    });
  });

  describe('key exchange', () => {
    it('offers the hybrid post-quantum group first exactly where the runtime has it', () => {
      const [major = 0, minor = 0] = process.versions.openssl.split('.').map(Number);
      const expected = major > 3 || (major === 3 && minor >= 5) ? 'X25519MLKEM768' : 'X25519';
      assert.equal(keyExchangeGroups().split(':')[0], expected);
    });

    it('connects with a client that offers the hybrid group alone', async function () {
      if (!keyExchangeGroups().startsWith('X25519MLKEM768')) this.skip();
      const options = { ...anyName, ca: prod.bundlePem, cert: client.certificateChain, key: client.privateKey() };

      assert.deepEqual(reasons(await door.knock({ ...options, ecdhCurve: 'X25519MLKEM768' })), [
        'connected',
        'connected',
      ]);
    });

    it('refuses a client that offers none of our groups', async () => {
      const options = { ...anyName, ca: prod.bundlePem, cert: client.certificateChain, key: client.privateKey() };
      assert.notEqual(reasons(await door.knock({ ...options, ecdhCurve: 'P-521' }))[0], 'connected');
    });
  });

  describe('seen by openssl', () => {
    requireOpenssl();

    it('T02 refuses TLS 1.1 and TLS 1.2, and speaks TLS 1.3', async () => {
      for (const [version, reason] of [
        ['-tls1_1', 'tls-version'],
        ['-tls1_2', 'tls-version'],
        ['-tls1_3', 'no-certificate'],
      ] as const) {
        const refusal = door.refusal();
        const attempt = start('openssl', [
          's_client',
          '-connect',
          `127.0.0.1:${door.port}`,
          version,
          '-cipher',
          'ALL:@SECLEVEL=0',
        ]);
        assert.equal((await refusal).reason, reason, version);
        await attempt.exited;
      }
    });
  });

  it('does not depend on the defaults of node:tls', async () => {
    const { DEFAULT_MIN_VERSION } = tls;
    tls.DEFAULT_MIN_VERSION = 'TLSv1';
    try {
      door.server.setSecureContext(serverTlsOptions(materialOf()));
      const options = { ...anyName, ca: prod.bundlePem, maxVersion: 'TLSv1.2' } as const;
      assert.equal(reasons(await door.knock(options))[0], 'tls-version');
    } finally {
      tls.DEFAULT_MIN_VERSION = DEFAULT_MIN_VERSION;
    }
  });
});

describe('the TLS options of a door where workloads enrol', () => {
  it('are those of every other server, but for the client certificate that nobody has yet', () => {
    const { requestCert: _, rejectUnauthorized: __, ...common } = serverTlsOptions(server);

    assert.deepEqual(enrolmentServerTlsOptions(server), { ...common, requestCert: false });
  });
});
