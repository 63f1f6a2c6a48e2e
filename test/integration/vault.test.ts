import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { InsecureConfigurationError, secret, type TlsSource } from '@sallyport/core';
import { type Clock, systemClock } from '@sallyport/core/spi';
import { createAuthority, type FromVaultOptions, fromVault, vaultSecret, vaultStore } from '@sallyport/pki';
import { eventually } from '../support/eventually.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';
import { startVault, type VaultServer } from '../support/vault-server.js';
import { recorder } from '../unit/core/tls/support.js';

const web = 'spiffe://prod.acme/svc/web';

let folder: TemporaryFolder;
let vault: VaultServer | undefined;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(async () => {
  await vault?.[Symbol.asyncDispose]();
  vault = undefined;
  folder[Symbol.dispose]();
});

async function start(options: { leaseSeconds?: number; ttlMs?: number } = {}): Promise<VaultServer> {
  vault = await startVault({ folder, authority: createAuthority({ trustDomain: 'prod.acme' }), ...options });
  return vault;
}

function optionsFor({ address, ca, credentials }: VaultServer, more: Partial<FromVaultOptions> = {}): FromVaultOptions {
  const secretId = secret.file(folder.write('secret-id', credentials.secretId));
  return { address, ca, auth: { method: 'approle', roleId: 'web', secretId }, id: web, role: 'web', ...more };
}

/** The reason why the source does not open. */
async function refusalOf(source: TlsSource): Promise<string> {
  const error = await source.open(recorder()).then(
    (handle) => {
      handle.close();
      return new Error('it was opened');
    },
    (reason: Error) => reason,
  );
  return error.message;
}

describe('tls.fromVault', () => {
  it('gets a certificate for a key that never leaves, and the root it was issued under', async () => {
    const server = await start();
    server.authority = server.authority.intermediate();

    const handle = await fromVault(optionsFor(server)).open(recorder());
    const { identity, leaf, bundles, certificateChain } = handle.current();
    handle.close();

    assert.equal(identity.toString(), web);
    assert.equal(leaf.subjectAltName, `URI:${web}`);
    assert.equal(certificateChain.match(/BEGIN CERTIFICATE/g)?.length, 2, 'the leaf and its issuer, not the root');
    assert.equal(bundles.get('prod.acme')?.map(String).join(''), server.authority.bundlePem);
    assert.ok(server.requests.every(({ headers }) => headers['x-vault-request'] === 'true'));
    assert.ok(!server.requests.some(({ body }) => body.includes('PRIVATE KEY')));
  });

  it('asks for nothing in checking its options, and finds all that is wrong with them', async () => {
    const server = await start();
    assert.deepEqual(await fromVault(optionsFor(server)).check(), []);
    const wrong = {
      address: 'http://127.0.0.1:8200',
      ca: '',
      auth: { method: 'approle', roleId: 'web', secretId: 'canary-literal' },
      id: 'https://web',
      role: '../web',
      mount: 'pki/../sys',
      refreshMs: 0,
      insecure: true,
    };
    const violations = await fromVault(wrong as unknown as FromVaultOptions).check();
    assert.deepEqual(violations.map(({ id, path }) => `${id} at ${path}`).sort(), [
      'limit-unbounded at tls.refreshMs',
      'option-invalid at tls.address',
      'option-invalid at tls.id',
      'option-invalid at tls.mount',
      'option-invalid at tls.role',
      'secret-literal at tls.auth.secretId',
      'tls-ca-empty at tls.ca',
      'tls-verification-off at tls.insecure',
    ]);
    assert.ok(!JSON.stringify(violations).includes('canary'));
    assert.deepEqual(server.requests, []);
  });

  it('does not open what check() refuses', async () => {
    const server = await start();
    const none = join(folder.path, 'none');
    const source = fromVault(
      optionsFor(server, { ca: none, auth: { method: 'token', token: secret.file(none) }, bundle: none }),
    );
    assert.deepEqual(
      (await source.check()).map(({ id, path }) => `${id} at ${path}`),
      ['tls-file-unreadable at tls.ca', 'tls-file-unreadable at tls.bundle', 'secret-unavailable at tls.auth.token'],
    );
    await assert.rejects(source.open(recorder()), InsecureConfigurationError);
  });

  it('T75 shows no token, secret id or key in anything that can be inspected', async () => {
    const server = await start();
    const context = recorder();
    const source = fromVault(optionsFor(server));
    const handle = await source.open(context);
    const shown = inspect([source, handle, context.recorded], { depth: 20, showHidden: true });
    handle.close();
    assert.ok(!/canary|PRIVATE/.test(shown));
  });

  it('logs in once for all handles and begins anew after the last was closed', async () => {
    const server = await start();
    const source = fromVault(optionsFor(server));
    const handles = await Promise.all([source.open(recorder()), source.open(recorder())]);
    for (const handle of handles) handle.close();
    (await source.open(recorder())).close();
    assert.equal(server.paths().filter((path) => path === 'POST auth/approle/login').length, 2);
    assert.equal(server.paths().filter((path) => path === 'POST pki/sign/web').length, 2);
  });

  describe('logs in', () => {
    it('with a Kubernetes service account', async () => {
      const server = await start();
      const jwt = secret.file(folder.write('jwt', server.credentials.jwt));
      const auth = { method: 'kubernetes', role: 'web', jwt } as const;
      (await fromVault(optionsFor(server, { auth })).open(recorder())).close();
      assert.equal(server.paths()[0], 'POST auth/kubernetes/login');
    });

    it('with a token that it was given', async () => {
      const server = await start({ leaseSeconds: 0 });
      const auth = { method: 'token', token: secret.file(folder.write('token', 'root-token')) } as const;
      (await fromVault(optionsFor(server, { auth })).open(recorder())).close();
      assert.deepEqual(server.paths().slice(0, 2), ['GET auth/token/lookup-self', 'POST pki/sign/web']);
    });

    it('in a namespace', async () => {
      const server = await start();
      (await fromVault(optionsFor(server, { namespace: 'team/orders' })).open(recorder())).close();
      assert.ok(server.requests.every(({ headers }) => headers['x-vault-namespace'] === 'team/orders'));
    });

    it('and renews the lease of the token before it ends, while nobody asks for anything', async () => {
      const server = await start({ leaseSeconds: 2 });
      const handle = await fromVault(optionsFor(server)).open(recorder());
      await eventually(() => assert.ok(server.paths().filter((path) => path.endsWith('renew-self')).length >= 2), 5000);
      handle.close();
      assert.equal(server.paths().filter((path) => path.endsWith('login')).length, 1);
    });

    it('and renews it also when its timer is early, as timers are by a millisecond', async () => {
      const server = await start({ leaseSeconds: 2 });
      const early: Clock = { now: systemClock.now, after: (ms, callback) => systemClock.after(ms - 20, callback) };
      const handle = await fromVault(optionsFor(server)).open({ ...recorder(), clock: early });
      await eventually(() => assert.ok(server.paths().some((path) => path.endsWith('renew-self'))), 3000);
      handle.close();
    });

    it('again when the lease cannot be renewed', async () => {
      const server = await start({ leaseSeconds: 2 });
      server.interventions.set('/v1/auth/token/renew-self', denied);
      const handle = await fromVault(optionsFor(server)).open(recorder());
      await eventually(() => assert.equal(server.paths().filter((path) => path.endsWith('login')).length, 2), 5000);
      handle.close();
    });

    it('again with the token that was revoked meanwhile', async () => {
      const server = await start({ ttlMs: 1500 });
      const context = recorder();
      const handle = await fromVault(optionsFor(server)).open(context);
      server.tokens.clear();
      await eventually(() => assert.ok(context.of('rotated').length > 0), 5000);
      handle.close();
      assert.deepEqual(context.of('rotation-failed'), []);
    });
  });

  describe('follows', () => {
    it('the life of its certificate, with a new key each time', async () => {
      const server = await start({ ttlMs: 1500 });
      const context = recorder();
      const handle = await fromVault(optionsFor(server)).open(context);
      const first = handle.current();
      await eventually(() => assert.ok(handle.current().generation >= 3), 6000);
      assert.notEqual(handle.current().privateKey(), first.privateKey());
      handle.close();
      assert.deepEqual(context.of('rotation-failed'), []);
    });

    it('the lists of its issuers', async () => {
      const server = await start();
      const { serial } = server.authority.issue({ id: web });
      const handle = await fromVault(optionsFor(server, { crl: true, refreshMs: 100 })).open(recorder());
      assert.equal(handle.current().crls.length, 1);
      assert.equal(handle.current().revoked.size, 0);
      server.list = server.authority.crl({ revoked: [serial] });
      await eventually(() => assert.equal(handle.current().revoked.size, 1), 4000);
      handle.close();
    });

    it('an outage of Vault to its end, and says once what is wrong', async () => {
      const server = await start({ ttlMs: 1500 });
      const context = recorder();
      const handle = await fromVault(optionsFor(server)).open(context);
      const answer = (_: unknown, response: ServerResponse) =>
        answerWith(response, 503, '{"errors":["Vault is sealed"]}');
      server.interventions.set('/v1/pki/sign/web', answer);
      await eventually(() => assert.ok(context.of('rotation-failed').length > 0), 5000);
      server.interventions.clear();
      await eventually(() => assert.ok(handle.current().generation > 1), 5000);
      handle.close();
      assert.deepEqual(context.of('rotation-failed'), [{ detail: 'Vault refused: it is sealed; unseal it' }]);
    });
  });

  describe('refuses', () => {
    const cases: Record<string, { prepare: (server: VaultServer) => void; says: RegExp }> = {
      'a certificate of another identity': {
        prepare: (server) =>
          server.interventions.set('/v1/pki/sign/web', ({ body }, response) =>
            signed(response, server, server.authority.issueForCsr(JSON.parse(body).csr, { id: `${web}-other` })),
          ),
        says: /asked for was spiffe:\/\/prod\.acme\/svc\/web$/,
      },
      'a certificate for another key': {
        prepare: (server) =>
          server.interventions.set('/v1/pki/sign/web', (_, response) =>
            signed(response, server, server.authority.issue({ id: web })),
          ),
        says: /does not belong to the certificate/,
      },
      'the certificate of a CA': {
        prepare: (server) =>
          server.interventions.set('/v1/pki/sign/web', (_, response) =>
            signed(response, server, server.authority.intermediate()),
          ),
        says: /not an X\.509-SVID/,
      },
      'a certificate that does not chain to its root': {
        prepare: (server) => {
          const foreign = createAuthority({ trustDomain: 'prod.acme' });
          server.interventions.set('/v1/pki/sign/web', ({ body }, response) =>
            signed(response, server, foreign.issueForCsr(JSON.parse(body).csr, { id: web })),
          );
        },
        says: /does not chain/,
      },
      garbage: {
        prepare: (server) =>
          server.interventions.set('/v1/pki/sign/web', (_, response) => answerWith(response, 400, 'canary <html>')),
        says: /^Vault refused the request \(400\)$/,
      },
      'a redirect, which the token would follow': {
        prepare: (server) =>
          server.interventions.set('/v1/pki/sign/web', (_, response) => {
            response.setHeader('location', 'https://127.0.0.1:1/canary');
            return answerWith(response, 307, '');
          }),
        says: /redirect, which is not followed/,
      },
      'a login that is refused': {
        prepare: (server) =>
          server.interventions.set('/v1/auth/approle/login', (_, response) =>
            answerWith(response, 400, '{"errors":["invalid role or secret ID"]}'),
          ),
        says: /^Vault refused: the secret id is not valid$/,
      },
    };
    for (const [what, { prepare, says }] of Object.entries(cases)) {
      it(what, async () => {
        const server = await start();
        prepare(server);
        const reason = await refusalOf(fromVault(optionsFor(server)));
        assert.match(reason, says);
        assert.doesNotMatch(reason, /canary/);
      });
    }

    it('to go without lists where lists are wanted', async () => {
      const server = await start();
      server.list = '';
      assert.equal(
        await refusalOf(fromVault(optionsFor(server, { crl: true }))),
        'no issuer of Vault has a revocation list',
      );
    });

    it('lists that have run out', async () => {
      const server = await start();
      server.list = server.authority.crl({ revoked: [], thisUpdate: Date.now() - 2000, nextUpdate: Date.now() - 1000 });
      assert.match(await refusalOf(fromVault(optionsFor(server, { crl: true }))), /past its next update/);
    });

    it('a server whose certificate is not of the pinned CA, before it has sent anything', async () => {
      const server = await start();
      const ca = folder.write('other-ca.pem', createAuthority({ trustDomain: 'vault.internal' }).bundlePem);
      const reason = await refusalOf(fromVault(optionsFor(server, { ca, startTimeoutMs: 500 })));
      assert.match(reason, /^Vault cannot be reached \(untrusted-issuer/);
      assert.deepEqual(server.requests, []);
    });

    it('an answer that does not come, and one that does not end', async () => {
      const server = await start();
      const source = () => refusalOf(fromVault(optionsFor(server, { timeoutMs: 200, startTimeoutMs: 300 })));
      server.interventions.set('/v1/pki/sign/web', () => 'silence');
      assert.equal(await source(), 'Vault did not answer within 200 ms');
      server.interventions.set('/v1/pki/sign/web', (_, response) => response.write('{"data":'));
      assert.equal(await source(), 'Vault did not answer within 200 ms');
    });

    it('what Vault says later of roots, as long as it makes no whole with the certificate', async () => {
      const server = await start();
      const context = recorder();
      const handle = await fromVault(optionsFor(server, { refreshMs: 100 })).open(context);
      const first = handle.current();
      server.authority = createAuthority({ trustDomain: 'prod.acme' });
      await eventually(() => assert.equal(context.of('rotation-failed').length, 1), 4000);
      assert.match(String(context.of('rotation-failed')[0]?.detail), /does not chain/);
      assert.equal(handle.current(), first);
      handle.close();
    });
  });
});

describe('secret.vault', () => {
  const login = (server: VaultServer) => {
    const { address, ca, auth } = optionsFor(server);
    return { address, ca, auth };
  };

  it('reads a field anew each time, with one login', async () => {
    const server = await start();
    server.secrets.set('orders/db', { password: 'first' });
    const password = vaultSecret(login(server), 'orders/db#password');
    const before = await password.read();
    server.secrets.set('orders/db', { password: 'second' });
    assert.deepEqual([before, await password.read()], ['first', 'second']);
    assert.equal(password.toString(), '[secret vault:secret:orders/db#password]');
    assert.deepEqual(await password.check(), []);
    assert.equal(server.paths().filter((path) => path.endsWith('login')).length, 1);
  });

  it('shares one login among the secrets of the same options', async () => {
    const server = await start();
    server.secrets.set('a', { one: '1111', two: '2222' });
    const options = login(server);
    assert.equal(vaultStore(options), vaultStore(options));
    assert.deepEqual(
      await Promise.all([vaultSecret(options, 'a#one'), vaultSecret(options, 'a#two')].map((s) => s.read())),
      ['1111', '2222'],
    );
    assert.equal(server.paths().filter((path) => path.endsWith('login')).length, 1);
  });

  it('says what is wrong, and never a value', async () => {
    const server = await start();
    server.secrets.set('orders/db', { password: 'canary-password', port: 5432 });
    const cases: [key: string, says: RegExp][] = [
      ['orders/none#password', /Vault has nothing there \(404\)/],
      ['orders/db#user', /no such key/],
      ['orders/db#port', /does not hold text/],
      ['orders/db', /names path and field/],
      ['../sys/seal#password', /names path and field/],
      ['orders/db?version=1#password', /names path and field/],
    ];
    for (const [key, says] of cases) {
      const [violation] = await vaultSecret(login(server), key).check('option');
      assert.equal(violation?.id, 'secret-unavailable', key);
      assert.match(violation.problem, says);
      assert.doesNotMatch(violation.problem, /canary/);
    }
  });

  it('T75 says in words of ours what Vault refuses, with the remedy', async () => {
    const server = await start();
    const refusals: [status: number, text: string, says: string][] = [
      [400, 'unknown role: canary', 'Vault refused: it has no such role'],
      [400, 'URI Subject Alternative Names were provided via CSR which are not valid', 'allowed_uri_sans'],
      [400, 'the common_name field is required, or must be provided', 'set require_cn=false'],
      [400, 'role requires keys of type rsa', 'set key_type=ec'],
      [400, 'canary', 'Vault refused the request (400)'],
      [403, 'permission denied', 'Vault refused: permission denied'],
      [404, 'no handler for route "canary"', 'Vault refused: nothing is mounted there'],
      [405, 'canary', 'Vault has no such operation there (405)'],
      [418, 'canary', 'Vault gave an answer of an unknown kind (418)'],
      [429, 'canary', 'Vault limits the rate of requests, or is a standby (429)'],
      [472, 'canary', 'this Vault is a secondary for disaster recovery (472)'],
      [473, 'canary', 'this Vault is a performance standby (473)'],
      [500, 'canary', 'Vault failed (500)'],
      [501, 'canary', 'Vault is not initialized (501)'],
      [503, 'canary', 'Vault is sealed or down (503)'],
      [503, 'Vault is sealed', 'Vault refused: it is sealed; unseal it'],
    ];
    for (const [status, text, says] of refusals) {
      server.interventions.set('/v1/secret/data/a', (_, response) =>
        answerWith(response, status, JSON.stringify({ errors: [text] })),
      );
      const [violation] = await vaultSecret(login(server), 'a#b').check();
      assert.ok(String(violation?.problem).includes(says), violation?.problem);
      assert.doesNotMatch(String(violation?.problem), /canary/);
    }
  });

  it('refuses an answer without end, and one that is not of the documented form', async () => {
    const server = await start();
    const hostile: [body: string, says: RegExp][] = [
      ['x'.repeat(5_000_000), /longer than 4194304 bytes/],
      ['canary', /not JSON/],
      ['{"data":{"data":"canary"}}', /not of the form/],
      ['null', /not of the form/],
    ];
    for (const [body, says] of hostile) {
      server.interventions.set('/v1/secret/data/a', (_, response) => answerWith(response, 200, body));
      const [violation] = await vaultSecret(login(server), 'a#b').check();
      assert.match(String(violation?.problem), says);
      assert.doesNotMatch(String(violation?.problem), /canary/);
    }
  });

  it('says what is wrong with its options when it is checked', async () => {
    const options = { address: 'http://127.0.0.1', ca: 'ca.pem', auth: { method: 'token', token: 'canary-literal' } };
    const [violation] = await vaultSecret(options as never, 'a#b').check();
    assert.equal(violation?.id, 'secret-unavailable');
    assert.match(violation.problem, /secret\.vault\.address: .*https/);
    assert.doesNotMatch(violation.problem, /canary/);
  });
});

function answerWith(response: ServerResponse, status: number, body: string): ServerResponse {
  return response.writeHead(status).end(body);
}

function denied(_: unknown, response: ServerResponse): ServerResponse {
  return answerWith(response, 403, '{"errors":["permission denied"]}');
}

function signed(response: ServerResponse, { authority }: VaultServer, { certificatePem }: { certificatePem: string }) {
  const data = { certificate: certificatePem, issuing_ca: authority.bundlePem, ca_chain: [authority.bundlePem] };
  return answerWith(response, 200, JSON.stringify({ data }));
}
