/**
 * Shows `tls.fromVault` and `secret.vault` on a real Vault or OpenBao. By hand, because machines that run the tests have none:
 *
 *     VAULT_BIN=/usr/local/bin/vault node test/dist/interop/vault.js
 *
 * Starts the server in development mode with TLS on loopback, sets up PKI, AppRole and KV, and ends it again.
 */
import assert from 'node:assert/strict';
import type { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pinnedHttpsAgent, type TlsHandle } from '@sallyport/core/spi';
import { createAuthority, vaultStore } from '@sallyport/pki';
import { type FromVaultOptions, secret, type TlsSource, tls } from 'sallyport';
import { start } from '../support/child.js';
import { eventually } from '../support/eventually.js';
import { freePort } from '../support/free-port.js';
import { httpsRequest } from '../support/servers/https-request.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { recorder } from '../unit/core/tls/support.js';

const web = 'spiffe://prod.acme/svc/web';
const rootToken = 'root-of-the-demonstration';

const program = process.env.VAULT_BIN;
if (program === undefined) throw new Error('VAULT_BIN must name the program vault or bao');

using folder = temporaryFolder();
const port = await freePort();
const address = `https://127.0.0.1:${port}`;
await using server = start(
  program,
  [
    ...['server', '-dev', '-dev-tls', `-dev-tls-cert-dir=${folder.path}`, `-dev-root-token-id=${rootToken}`],
    ...[`-dev-listen-address=127.0.0.1:${port}`, '-dev-no-store-token'],
  ],
  { timeoutMs: 120_000 },
);
await server.output(/Development mode should NOT be used/i);
const ca = join(folder.path, 'vault-ca.pem');
const agent = pinnedHttpsAgent(readFileSync(ca, 'utf8'));

const version = (await vault('GET', 'sys/health')) as { version?: string };
say(`${program.split('/').at(-1)} ${version.version}`);

// PKI: a root, a role for one identity, and who may use it.
await vault('POST', 'sys/mounts/pki', { type: 'pki', config: { max_lease_ttl: '8760h' } });
const issuer = { common_name: 'prod.acme', uri_sans: 'spiffe://prod.acme', key_type: 'ec', key_bits: 256, ttl: '24h' };
await vault('POST', 'pki/root/generate/internal', { ...issuer, issuer_name: 'first' });
await vault('POST', 'pki/config/crl', { auto_rebuild: true, expiry: '72h' });
const role = { allowed_uri_sans: web, require_cn: false, key_type: 'ec', key_bits: 256 };
await vault('POST', 'pki/roles/web', { ...role, ttl: '1h', no_store: false });
await vault('POST', 'pki/roles/brief', { ...role, ttl: '8s', not_before_duration: '1s' });
await vault('POST', 'pki/roles/strict', { ...role, allowed_uri_sans: 'spiffe://prod.acme/svc/other' });
await vault('POST', 'pki/roles/named', { ...role, require_cn: true });
await vault('POST', 'pki/roles/rsa', { ...role, key_type: 'rsa', key_bits: 2048 });
await vault('PUT', 'sys/policies/acl/web', {
  policy: `path "pki/sign/*" { capabilities = ["update"] }
    path "pki/sign/forbidden" { capabilities = ["deny"] }
    path "secret/data/orders/*" { capabilities = ["read"] }`,
});
await vault('POST', 'sys/auth/approle', { type: 'approle' });
await vault('POST', 'auth/approle/role/web', { token_policies: 'web', token_ttl: '4s', token_max_ttl: '20s' });
const { role_id: roleId } = dataOf(await vault('GET', 'auth/approle/role/web/role-id'));
const { secret_id: secretId } = dataOf(await vault('POST', 'auth/approle/role/web/secret-id', {}));
const auth = {
  method: 'approle',
  roleId: String(roleId),
  secretId: secret.file(folder.write('secret-id', String(secretId))),
} as const;
const options: FromVaultOptions = { address, ca, auth, id: web, role: 'web', crl: true, refreshMs: 1000 };

{
  const handle = await tls.fromVault(options).open(recorder());
  const { leaf, bundles, crls } = handle.current();
  handle.close();
  say(
    `issued ${leaf.subjectAltName}, until ${leaf.validTo}; ${bundles.get('prod.acme')?.length} root, ${crls.length} list`,
  );
}
{
  const context = recorder();
  const handle = await tls.fromVault({ ...options, role: 'brief' }).open(context);
  await eventually(() => assert.ok(handle.current().generation >= 8), 40_000);
  handle.close();
  say(`renewed ${context.of('rotated').length} times in 8-second lives over token leases of 4 s, at most 20 s`);
  assert.deepEqual(context.of('rotation-failed'), []);
}
{
  const context = recorder();
  const handle = await tls.fromVault(options).open(context);
  const other = await tls.fromVault(options).open(recorder());
  const { serialNumber } = other.current().leaf;
  other.close();
  const began = Date.now();
  await vault('POST', 'pki/revoke', { serial_number: serialNumber.match(/../g)?.join(':') });
  await vault('GET', 'pki/crl/rotate');
  await eventually(() => assert.equal(handle.current().revoked.size, 1), 10_000);
  say(`saw the revocation of another certificate after ${Date.now() - began} ms, looking every 1,000 ms`);

  await vault('POST', 'pki/root/generate/internal', { ...issuer, issuer_name: 'second' });
  await eventually(() => assert.equal(handle.current().bundles.get('prod.acme')?.length, 2), 10_000);
  say('took up the second root beside the first');
  handle.close();
  assert.deepEqual(context.of('rotation-failed'), []);
}
{
  const context = recorder();
  const handle = await tls.fromVault({ ...options, role: 'brief' }).open(context);
  const issuedBy = () =>
    handle
      .current()
      .bundles.get('prod.acme')
      ?.findIndex((root) => isIssuedBy(handle, root));
  const before = issuedBy();
  await vault('POST', 'pki/config/issuers', { default: 'second' });
  await eventually(() => assert.notEqual(issuedBy(), before), 20_000);
  handle.close();
  assert.deepEqual(context.of('rotation-failed'), []);
  say('changed over to the second root, with nothing failed in between');
}
for (const wrong of [
  { role: 'strict' },
  { role: 'named' },
  { role: 'rsa' },
  { role: 'none' },
  { role: 'forbidden' },
  { mount: 'nothing', authorities: ['pki'] },
  { auth: { ...auth, secretId: secret.file(folder.write('wrong', 'canary')) } },
  { ca: folder.write('foreign.pem', createAuthority({ trustDomain: 'vault.internal' }).bundlePem) },
]) {
  say(`refused: ${await refusalOf(tls.fromVault({ ...options, ...wrong, startTimeoutMs: 500 }))}`);
}
{
  const store = { address, ca, auth };
  await vault('POST', 'secret/data/orders/db', { data: { password: 'first' } });
  const password = secret.vault(store, 'orders/db#password');
  const before = await password.read();
  await vault('POST', 'secret/data/orders/db', { data: { password: 'second' } });
  assert.deepEqual([before, await password.read()], ['first', 'second']);
  say(`${password} was read before and after its rotation`);
  for (const key of ['orders/none#password', 'orders/db#user', 'other/db#password']) {
    const [violation] = await secret.from(vaultStore(store), key).check();
    say(`refused: ${violation?.problem}`);
  }
}
await vault('PUT', 'sys/seal', {});
say(`sealed: ${await refusalOf(tls.fromVault({ ...options, startTimeoutMs: 500 }))}`);
agent.destroy();
await server.stop();

async function vault(method: string, path: string, body?: object): Promise<unknown> {
  const headers = { 'x-vault-token': rootToken, 'x-vault-request': 'true' };
  const answer = await httpsRequest({
    method,
    url: `${address}/v1/${path}`,
    headers,
    agent,
    ...(body ? { body } : {}),
  });
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`);
  return answer.text === '' ? {} : JSON.parse(answer.text);
}

function isIssuedBy(handle: TlsHandle, root: X509Certificate): boolean {
  return handle.current().leaf.verify(root.publicKey);
}

function dataOf(answer: unknown): Record<string, unknown> {
  return (answer as { data: Record<string, unknown> }).data;
}

async function refusalOf(source: TlsSource): Promise<string> {
  const error = await source.open(recorder()).then(
    (handle) => {
      handle.close();
      return undefined;
    },
    (reason: Error) => reason,
  );
  assert.ok(error, 'it was opened');
  assert.doesNotMatch(error.message, /canary/);
  return error.message;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
