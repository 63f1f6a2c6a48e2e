import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { allow, InsecureConfigurationError, secret, type ViolationId } from '@sallyport/core';
import { type AuthorityServiceOptions, createAuthority, createAuthorityService } from '@sallyport/pki';
import { authorityHouse, doorsOf, type House, listOf, PASSPHRASE } from '../support/authority-house.js';
import { isListening } from '../support/free-port.js';

const DAY_MS = 86_400_000;

let house: House;
beforeEach(async () => {
  house = await authorityHouse();
});
afterEach(() => house[Symbol.dispose]());

interface Case {
  readonly id: ViolationId;
  readonly what: string;
  readonly path: string;
  /** Options as JavaScript may write them. */
  wrong(at: House): object | Promise<object>;
}

function material(at: House, wrong: object): object {
  return { authority: { ...at.material, ...wrong } };
}

function issuer(at: House, wrong: object): object {
  return material(at, { issuer: { ...at.material.issuer, ...wrong } });
}

const cases: readonly Case[] = [
  {
    id: 'authority-key-plain',
    what: 'a key that is not encrypted',
    path: 'authorityService.authority.issuer.key',
    async wrong(at) {
      await at.root.intermediate().save(at.folder.path, { name: 'plain' });
      return issuer(at, { key: join(at.folder.path, 'plain.key') });
    },
  },
  {
    id: 'tls-certificate-untrusted',
    what: 'an issuer that its root has revoked',
    path: 'authorityService.authority.issuer.certificate',
    wrong(at) {
      const { serialNumber } = new X509Certificate(readFileSync(at.material.issuer.certificate));
      const list = at.root.crl({ revoked: [serialNumber], nextUpdate: Date.now() + DAY_MS });
      return material(at, { rootLists: [at.folder.write('revoking.crl', list)] });
    },
  },
  {
    id: 'authority-store-unusable',
    what: 'a store that others may change',
    path: 'authorityService.store',
    wrong(at) {
      const store = join(at.folder.path, 'open');
      mkdirSync(store);
      chmodSync(store, 0o777);
      return { store };
    },
  },
  {
    id: 'secret-literal',
    what: 'a passphrase in clear text',
    path: 'authorityService.authority.issuer.passphrase',
    wrong: (at) => issuer(at, { passphrase: PASSPHRASE }),
  },
  {
    id: 'secret-unavailable',
    what: 'a passphrase that is not there',
    path: 'authorityService.authority.issuer.passphrase',
    wrong: (at) => issuer(at, { passphrase: secret.env('SALLYPORT_TEST_NOT_SET') }),
  },
  {
    id: 'tls-material-invalid',
    what: 'a wrong passphrase',
    path: 'authorityService.authority.issuer.key',
    wrong: (at) => issuer(at, { passphrase: secret.env('PATH') }),
  },
  {
    id: 'tls-key-exposed',
    what: 'a key that others may read',
    path: 'authorityService.authority.issuer.key',
    wrong(at) {
      chmodSync(join(at.folder.path, 'issuer.key'), 0o640);
      return {};
    },
  },
  {
    id: 'tls-key-mismatch',
    what: 'the key of another issuer',
    path: 'authorityService.authority.issuer.key',
    async wrong(at) {
      const other = (await at.issuer('other')) as { readonly key?: string };
      return issuer(at, { key: other.key });
    },
  },
  {
    id: 'tls-certificate-untrusted',
    what: 'an issuer below another root',
    path: 'authorityService.authority.issuer.certificate',
    async wrong(at) {
      return material(at, { issuer: await at.issuer('other', createAuthority({ trustDomain: 'prod.acme' })) });
    },
  },
  {
    id: 'tls-ca-empty',
    what: 'no root',
    path: 'authorityService.authority.roots',
    wrong: (at) => material(at, { roots: at.folder.write('empty.pem', '') }),
  },
  {
    id: 'tls-crl-invalid',
    what: 'no list of its root',
    path: 'authorityService.authority.rootLists',
    wrong: (at) => material(at, { rootLists: [at.folder.write('empty.crl', '')] }),
  },
  {
    id: 'tls-crl-invalid',
    what: 'a list of its root that is past its time',
    path: 'authorityService.authority.rootLists',
    wrong: (at) =>
      material(at, {
        rootLists: [
          at.folder.write(
            'old.crl',
            at.root.crl({ revoked: [], thisUpdate: Date.now() - 2 * DAY_MS, nextUpdate: Date.now() - DAY_MS }),
          ),
        ],
      }),
  },
  {
    id: 'tls-crl-invalid',
    what: 'a list that another root has signed',
    path: 'authorityService.authority.rootLists',
    wrong: (at) =>
      material(at, {
        rootLists: [at.folder.write('other.crl', listOf(createAuthority({ trustDomain: 'prod.acme' })))],
      }),
  },
  {
    id: 'server-wildcard-bind',
    what: 'a door on every interface',
    path: 'authorityService.listen.enrolment',
    wrong: () => ({ listen: { enrolment: '0.0.0.0:0', address: '127.0.0.1:0' } }),
  },
  {
    id: 'authorization-missing',
    what: 'no decision about who may revoke',
    path: 'authorityService.authorize',
    wrong: () => ({ authorize: undefined }),
  },
  {
    id: 'authorization-allow-all',
    what: 'a rule that lets everybody do everything',
    path: 'authorityService.authorize[0].to',
    wrong: () => ({ authorize: [allow({ from: 'spiffe://prod.acme/**', to: '*' })] }),
  },
  {
    id: 'option-unknown',
    what: 'an option that does not exist',
    path: 'authorityService.leafTtl',
    wrong: () => ({ leafTtl: 1000 }),
  },
  {
    id: 'option-invalid',
    what: 'lists that are renewed too late',
    path: 'authorityService.crl.intervalMs',
    wrong: () => ({ crl: { validityMs: 10_000, intervalMs: 6000 } }),
  },
  {
    id: 'limit-unbounded',
    what: 'no limit of requests',
    path: 'authorityService.limits.requestsPerSecond',
    wrong: () => ({ limits: { requestsPerSecond: Number.POSITIVE_INFINITY } }),
  },
  {
    id: 'tls-verification-off',
    what: 'verification turned off',
    path: 'authorityService.listen.rejectUnauthorized',
    wrong: () => ({ listen: { enrolment: '127.0.0.1:0', address: '127.0.0.1:0', rejectUnauthorized: false } }),
  },
];

describe('an authority', () => {
  for (const { id, what, path, wrong } of cases) {
    it(`does not start with ${what}: ${id}`, async () => {
      const options = house.options((await wrong(house)) as Partial<AuthorityServiceOptions>);
      const service = createAuthorityService(options);

      const refusal = await service.start().then(
        () => assert.fail('it started'),
        (error) => error,
      );

      assert.ok(refusal instanceof InsecureConfigurationError, String(refusal));
      const found = refusal.violations.map((violation) => `${violation.id} at ${violation.path}`);
      assert.ok(found.includes(`${id} at ${path}`), found.join(', '));
      assert.equal(service.endpoints, undefined);
      assert.equal(service.state, 'stopped');
    });
  }

  it('finds nothing wrong with what is in order, and is ready when it has started', async () => {
    const service = createAuthorityService(house.options());

    assert.deepEqual(await service.check(), []);
    await service.start();

    assert.deepEqual(service.readiness, { ready: true, reasons: [] });
    await service.stop();
  });

  it('lets go of everything when it stops, twice', async () => {
    const running = await house.start();
    const { enrolment, address } = doorsOf(running.service);

    await running.service.stop();
    await running.service.stop();

    assert.deepEqual([await isListening(enrolment.port), await isListening(address.port)], [false, false]);
    assert.equal(running.service.readiness.ready, false);
    await (await house.start()).service.stop();
  });

  it('does not start twice', async () => {
    const { service } = await house.start();

    await assert.rejects(service.start(), /started or stopped before/);

    await service.stop();
    await assert.rejects(service.createJoinToken({ service: 'web' }), /the authority is stopped/);
  });

  it('keeps its key encrypted on the disk', () => {
    assert.match(readFileSync(join(house.folder.path, 'issuer.key'), 'utf8'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
  });
});
