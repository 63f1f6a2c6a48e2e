import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { Agent, type AgentOptions } from 'node:https';
import { connect } from 'node:net';
import { type Authority, createAuthority, type IssuedIdentity } from '@sallyport/pki';
import { type Child, startNode } from '../../support/child.js';
import { eventually } from '../../support/eventually.js';
import { ConsulServer } from '../../support/servers/consul-server.js';
import { EtcdServer, etcdCertificate } from '../../support/servers/etcd-server.js';
import { Etcdctl } from '../../support/servers/etcdctl.js';
import { httpsRequest } from '../../support/servers/https-request.js';
import { requireServers } from '../../support/servers/programs.js';
import type { ServerCluster, ServerNode } from '../../support/servers/server-cluster.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const pki = createAuthority({ trustDomain: 'prod.acme' });
const web = pki.issue({ id: 'spiffe://prod.acme/svc/web' });

/** Long enough for an election on a machine that is busy with other tests. */
const ELECTION_MS = 15_000;

describe('a Consul server for tests', () => {
  requireServers('consul-1.8.7');
  let consul: ConsulServer;
  before(async () => {
    consul = await ConsulServer.start({ pki });
  });
  after(() => consul?.stop());

  refusesStrangers(() => consul, '/v1/status/leader');

  it('refuses a token it does not know', async () => {
    const { status, text } = await asWeb('/v1/kv/config?raw', 'e4b5fcb5-51a8-4f1f-9b7c-1fdf4b3a0f5e');
    assert.equal(status, 403);
    assert.match(text, /ACL not found/);
  });

  it('refuses what is asked without a token', async () => {
    assert.equal((await asWeb('/v1/agent/self')).status, 403);
  });

  it('allows a token what its policy says and refuses the rest, until it is revoked', async () => {
    await consul.acl.policy('reader', 'key_prefix "public/" { policy = "read" }');
    const token = await consul.acl.token({ policies: ['reader'] });
    await consul.api('PUT', '/v1/kv/public/greeting', 'hello');
    assert.equal((await asWeb('/v1/kv/public/greeting?raw', token.secretId)).text, 'hello');
    assert.equal((await asWeb('/v1/kv/private/greeting?raw', token.secretId)).status, 403);
    await consul.acl.update(token, { policies: [] });
    assert.equal((await asWeb('/v1/kv/public/greeting?raw', token.secretId)).status, 403);
    await consul.acl.revoke(token);
    assert.match((await asWeb('/v1/kv/public/greeting?raw', token.secretId)).text, /ACL not found/);
  });

  it('answers nobody after a kill, keeps its data over a restart and loses them in a wipe, where tokens live on', async () => {
    await consul.acl.policy('config', 'key_prefix "config" { policy = "read" }');
    const { secretId } = await consul.acl.token({ policies: ['config'] });
    await consul.api('PUT', '/v1/kv/config', 'kept');
    await consul.kill();
    await assert.rejects(asWeb('/v1/status/leader'), { code: 'ECONNREFUSED' });
    await consul.restart();
    assert.equal((await asWeb('/v1/kv/config?raw', secretId)).text, 'kept');
    await consul.wipe();
    assert.equal((await asWeb('/v1/kv/config?raw', secretId)).status, 404);
  });

  function asWeb(path: string, token?: string) {
    const headers = token === undefined ? {} : { 'x-consul-token': token };
    return ask(consul.address + path, certificateOf(pki, web), headers);
  }
});

describe('three Consul servers for tests', () => {
  requireServers('consul-1.8.7');
  losesItsLeader(() => ConsulServer.start({ pki, servers: 3 }));
});

for (const version of ['3.4', '3.5'] as const) {
  describe(`an etcd ${version} server for tests`, () => {
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    let etcd: EtcdServer;
    before(async () => {
      etcd = await EtcdServer.start({ pki, version });
      await etcd.auth.role('web', [{ access: 'readwrite', prefix: '/services/web/' }]);
      await etcd.auth.user('web', { roles: ['web'] });
    });
    after(() => etcd?.stop());

    refusesStrangers(() => etcd, '/health');

    it('knows the user by the common name and allows what its role says', async () => {
      await asUser('web', ['put', '/services/web/1', 'here']);
      assert.deepEqual(
        (await etcd.keys('/services/')).map(({ key, value }) => [key, value]),
        [['/services/web/1', 'here']],
      );
    });

    it('refuses a user what no role allows', async () => {
      await assert.rejects(asUser('web', ['put', '/services/api/1', 'here']), /permission denied/);
      await assert.rejects(asUser('web', ['user', 'list']), /permission denied/);
    });

    it('refuses a certificate that names no user, and no common name at all', async () => {
      await assert.rejects(asUser('nobody', ['get', '/services/web/1']), /permission denied/);
      await assert.rejects(run(web, ['get', '/services/web/1']), /permission denied/);
    });

    it('changes roles of users and permissions of roles', async () => {
      await etcd.auth.role('guest', [{ access: 'read', key: '/motd' }]);
      await etcd.auth.user('guest', { roles: ['guest'] });
      await asUser('guest', ['get', '/motd']);
      await etcd.auth.role('guest', [{ access: 'read', key: '/other' }]);
      await assert.rejects(asUser('guest', ['get', '/motd']), /permission denied/);
      await asUser('guest', ['get', '/other']);
      await etcd.auth.user('guest', { roles: [] });
      await assert.rejects(asUser('guest', ['get', '/other']), /permission denied/);
    });

    it('keeps its data over a restart and loses them in a wipe, where users live on', async () => {
      await asUser('web', ['put', '/services/web/2', 'here']);
      await etcd.restart();
      assert.ok((await etcd.keys()).some(({ key }) => key === '/services/web/2'));
      await etcd.wipe();
      assert.deepEqual(await etcd.keys(), []);
      assert.equal(await etcd.revision(), '1');
      await asUser('web', ['put', '/services/web/3', 'here']);
      await assert.rejects(asUser('web', ['put', '/services/api/3', 'here']), /permission denied/);
    });

    it('forgets the history it compacts', async () => {
      await etcd.put('/history', 'old');
      const old = await etcd.revision();
      await etcd.put('/history', 'new');
      await etcd.compact();
      await assert.rejects(asUser('root', ['get', '/history', '--rev', old]), /compacted/);
    });

    it('removes the keys of a lease it revokes', async () => {
      const granted = await asUser('web', ['lease', 'grant', '60']);
      const hexadecimal = /lease ([0-9a-f]+) granted/.exec(granted)?.[1] ?? '';
      await asUser('web', ['put', '/services/web/leased', 'here', '--lease', hexadecimal]);
      const [key] = await etcd.keys('/services/web/leased');
      assert.equal(key?.lease, BigInt(`0x${hexadecimal}`).toString());
      assert.deepEqual(await etcd.leases(), [key.lease]);
      await etcd.revokeLease(key.lease);
      assert.deepEqual(await etcd.keys('/services/web/leased'), []);
    });

    function asUser(user: string, args: readonly string[]): Promise<string> {
      return run(etcdCertificate(pki, user), args);
    }

    function run(identity: IssuedIdentity, args: readonly string[]): Promise<string> {
      return etcdctl(version, etcd, identity, args);
    }
  });

  describe(`an etcd ${version} server with passwords for tests`, () => {
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    let etcd: EtcdServer;
    before(async () => {
      etcd = await EtcdServer.start({ pki, version, auth: 'password' });
      await etcd.auth.role('web', [{ access: 'readwrite', prefix: '/services/web/' }]);
      await etcd.auth.user('web', { password: 'first', roles: ['web'] });
    });
    after(() => etcd?.stop());

    refusesStrangers(() => etcd, '/health');

    it('allows the user with the password and refuses the wrong one, also after a change', async () => {
      await withPassword('first');
      await assert.rejects(withPassword('guess'), /authentication failed/);
      await etcd.auth.user('web', { password: 'second', roles: ['web'] });
      await withPassword('second');
      await assert.rejects(withPassword('first'), /authentication failed/);
    });

    it('knows nobody by a common name, be it root', async () => {
      const root = etcdCertificate(pki, 'root');
      await assert.rejects(etcdctl(version, etcd, root, ['get', '/services/web/1']), /user name is empty/);
    });

    it('keeps passwords in a wipe', async () => {
      await etcd.auth.user('web', { password: 'third', roles: ['web'] });
      await etcd.wipe();
      await withPassword('third');
    });

    function withPassword(password: string): Promise<string> {
      return etcdctl(version, etcd, web, ['put', '/services/web/1', 'here'], { name: 'web', password });
    }
  });

  describe(`three etcd ${version} servers for tests`, () => {
    requireServers(`etcd-${version}`, `etcdctl-${version}`);
    losesItsLeader(() => EtcdServer.start({ pki, version, nodes: 3 }));
  });
}

describe('the end of a test process', () => {
  requireServers('etcd-3.5', 'etcdctl-3.5');

  it('ends its servers and removes their files, though SIGKILL leaves it no time for that', async () => {
    using folder = temporaryFolder();
    const child = startServerOwner(folder, 'setInterval(() => {}, 1000)');
    const [, address = ''] = await child.output(/address (\S+)/);
    assert.notDeepEqual(readdirSync(folder.path), []);
    await child.stop('SIGKILL');
    await gone(folder, address);
  });

  it('comes by itself though nobody stopped the server', async () => {
    using folder = temporaryFolder();
    const child = startServerOwner(folder, '');
    const [, address = ''] = await child.output(/address (\S+)/);
    assert.equal((await child.exited).code, 0);
    await gone(folder, address);
  });

  function startServerOwner(folder: TemporaryFolder, then: string): Child {
    const program = `
      import { createAuthority } from '${import.meta.resolve('@sallyport/pki')}';
      import { EtcdServer } from '${import.meta.resolve('../../support/servers/etcd-server.js')}';
      const etcd = await EtcdServer.start({ pki: createAuthority({ trustDomain: 'prod.acme' }), version: '3.5' });
      console.log('address', etcd.address);
      ${then}`;
    return startNode(['--input-type=module', '-e', program], { env: { TMPDIR: folder.path } });
  }

  async function gone(folder: TemporaryFolder, address: string): Promise<void> {
    await eventually(() => assert.rejects(ask(`${address}/health`, certificateOf(pki, web)), { code: 'ECONNREFUSED' }));
    await eventually(() => assert.deepEqual(readdirSync(folder.path), []));
  }
});

/** What no server may grant to somebody who has no certificate of the authority. */
function refusesStrangers(server: () => ServerCluster<ServerNode>, path: string): void {
  it('answers a client with a certificate', async () => {
    const { status } = await ask(server().address + path, certificateOf(pki, web));
    assert.equal(status, 200);
  });

  it('refuses plaintext', async () => {
    const answer = await plaintext(Number(new URL(server().address).port), path);
    assert.doesNotMatch(answer, /^HTTP\/1\.\d 200/);
  });

  it('refuses a client without a certificate', async () => {
    await assert.rejects(ask(server().address + path, { ca: pki.bundlePem }), refusedHandshake);
  });

  it('refuses a client of another authority', async () => {
    const other = createAuthority({ trustDomain: 'prod.acme' });
    const options = { ...certificateOf(other, other.issue({ id: 'spiffe://prod.acme/svc/web' })), ca: pki.bundlePem };
    await assert.rejects(ask(server().address + path, options), refusedHandshake);
  });
}

/** Go tells by an alert; the connection may be reset before we have read it. */
function refusedHandshake(error: NodeJS.ErrnoException): true {
  assert.match(error.code ?? '', /^(ERR_SSL_[\w/]*(CERTIFICATE|ALERT)\w*|ECONNRESET|EPIPE)$/);
  return true;
}

function losesItsLeader(start: () => Promise<ServerCluster<ServerNode>>): void {
  it('have one leader, and another one when it is killed', async function () {
    this.timeout(30_000);
    await using cluster = await start();
    assert.equal(cluster.addresses.length, 3);
    const lost = await cluster.killLeader();
    await eventually(async () => assert.notEqual(await cluster.leader(), lost), ELECTION_MS);
  });
}

function certificateOf({ bundlePem }: Authority, identity: IssuedIdentity): AgentOptions {
  return { ca: bundlePem, cert: identity.certificatePem, key: identity.privateKeyPem };
}

async function ask(url: string, tls: AgentOptions, headers: Readonly<Record<string, string>> = {}) {
  const agent = new Agent(tls);
  try {
    return await httpsRequest({ method: 'GET', url, headers, agent });
  } finally {
    agent.destroy();
  }
}

/** What a server says to somebody who does not speak TLS. */
function plaintext(port: number, path: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.0\r\n\r\n`));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.once('error', () => {}); // a reset is a refusal too
    socket.once('close', () => resolve(answer));
  });
}

async function etcdctl(
  version: '3.4' | '3.5',
  etcd: EtcdServer,
  identity: IssuedIdentity,
  args: readonly string[],
  user?: { readonly name: string; readonly password: string },
): Promise<string> {
  using folder = temporaryFolder();
  const files = { ...(await identity.write(folder.path)), ca: folder.write('ca.pem', pki.bundlePem) };
  return await new Etcdctl({ program: `etcdctl-${version}`, files, user }).run(etcd.addresses, args);
}
