import assert from 'node:assert/strict';
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Authority, createAuthority, type IdentityFiles } from '@sallyport/pki';
import { type Child, startNode } from '../../support/child.js';
import { eventually } from '../../support/eventually.js';
import { freePort } from '../../support/free-port.js';
import { ask } from '../../support/sidecar/ask.js';
import { callerAt, localCaller } from '../../support/sidecar/conversation.js';
import { type Program, program } from '../../support/sidecar/program.js';
import { DOMAIN, idOf, TUNNEL } from '../../support/sidecar/world.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const CLI = fileURLToPath(new URL('../../../../packages/cli/dist/main.js', import.meta.url));

interface Place extends Disposable {
  readonly folder: TemporaryFolder;
  readonly authority: Authority;
  readonly files: IdentityFiles;
  /** Starts `sallyport` with these arguments. */
  run(args: readonly string[], env?: Readonly<Record<string, string>>): Child;
}

async function place(): Promise<Place> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: DOMAIN });
  return {
    folder,
    authority,
    files: await authority.issue({ id: idOf('ledger') }).write(join(folder.path, 'tls')),
    run: (args, env) => startNode([CLI, ...args], { timeoutMs: 20_000, ...(env ? { env } : {}) }),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

/** `sidecar.yaml` of a program on this port of loopback, with these upstreams and callers. */
function yamlOf({ files }: Place, port: number, app: Program, more: string, callers = ['web']): string {
  const rules = callers.map((name) => ({ effect: 'allow', from: idOf(name), to: TUNNEL }));
  return `version: 1
update: restart
name: ledger
tls: ${JSON.stringify({ cert: files.cert, key: files.key, ca: files.ca })}
listen: 127.0.0.1:${port}
inbound: { target: '${app.address}', protocol: tcp }
authorize: ${JSON.stringify(rules)}
drain: { graceMs: 300 }
${more}`;
}

describe('sallyport sidecar as a process', () => {
  it("refuses the seed's command, and runs the one that it recommends instead, word for word", async () => {
    using at = await place();
    const [cert, key, ca] = ['server.crt', 'server.key', 'ca.crt'].map((name) => join(at.folder.path, name));
    assert.ok(cert && key && ca);
    copyFileSync(at.files.cert, cert);
    copyFileSync(at.files.key, key);
    copyFileSync(at.files.ca, ca);
    const port = await freePort();
    const seed = `sidecar --proxy_address :${port} --proxy_tls_cert_file ${cert} --proxy_tls_key_file ${key}`;

    const { code, stderr } = await at.run(seed.split(' ')).exited;
    assert.equal(code, 1);
    assert.match(stderr, /refused to start, 4 violations/);
    const recommended = /^mended:\n {2}sallyport (.*)$/m.exec(stderr)?.[1] ?? assert.fail(stderr);
    await using child = at.run(recommended.split(' '));
    await child.output(/readiness ready/);

    assert.equal((await ask('h1', `127.0.0.1:${port}`, { host: 'service2' })).status, 421);
    assert.equal((await child.stop()).code, 0);
  });

  it('takes flags, variables and the file together, and speaks for the program', async () => {
    using at = await place();
    await using app = await program();
    const port = await freePort();
    const file = at.folder.write('sidecar.yaml', yamlOf(at, 1, app, '').replace(/^listen.*\n/m, ''));
    const env = { MICRO_PROXY_ADDRESS: `127.0.0.1:${port}`, MICRO_PROXY_CONFIG: file };
    await using child = at.run(['proxy', '--proxy-allow', idOf('shop')], env);
    await child.output(/readiness ready/);
    const door = { host: '127.0.0.1', port };
    const call = (name: string) =>
      callerAt(door, { authority: at.authority, credentials: at.authority.issue({ id: idOf(name) }) });

    using shop = await call('shop');
    shop.socket.end('hello');
    await shop.ended;
    assert.equal(shop.text(), 'hello');
    using web = await call('web');
    await web.closed;
    assert.equal(web.text(), '');
  });

  it('follows its file on SIGHUP: upstreams and rules; keeps the last good one when the new one is broken', async () => {
    using at = await place();
    await using app = await program();
    await using other = await program();
    const port = await freePort();
    const ledger = (listen: number) =>
      `upstreams: { self: { protocol: tcp, listen: '127.0.0.1:${listen}', service: ledger, addresses: ['127.0.0.1:${port}'] } }\n`;
    const [first, second] = [await freePort(), await freePort()];
    const callers = ['web', 'ledger'];
    const file = at.folder.write('sidecar.yaml', yamlOf(at, port, app, ledger(first), callers));
    await using child = at.run(['sidecar', '--config', file]);
    await child.output(/readiness ready/);
    const reach = async (listen: number) => {
      using local = await localCaller(`127.0.0.1:${listen}`);
      local.socket.end('hello');
      await local.closed;
      return local.text();
    };
    assert.equal(await reach(first), 'hello');

    writeFileSync(file, yamlOf(at, port, app, ledger(second), callers));
    process.kill(child.pid, 'SIGHUP');
    await child.output(/config-reloaded now 1 upstreams/);
    assert.equal(await reach(second), 'hello');
    assert.equal(await reach(first), '');

    writeFileSync(file, 'version: 1\nversion: 1\n');
    process.kill(child.pid, 'SIGHUP');
    await child.output(/config-reload-failed .*the key stands twice/);
    writeFileSync(file, yamlOf(at, port, other, ledger(second), callers));
    process.kill(child.pid, 'SIGHUP');
    await child.output(/config-reload-failed .*a change of inbound needs a restart/);
    assert.equal(await reach(second), 'hello');

    writeFileSync(file, yamlOf(at, port, app, ledger(second), ['web']));
    process.kill(child.pid, 'SIGHUP');
    await eventually(async () => assert.equal(await reach(second), ''));
  });

  it('takes a new certificate into use on SIGHUP', async () => {
    using at = await place();
    await using app = await program();
    const file = at.folder.write('sidecar.yaml', yamlOf(at, await freePort(), app, ''));
    await using child = at.run(['sidecar', '--config', file]);
    await child.output(/readiness ready/);

    await at.authority.issue({ id: idOf('ledger') }).write(join(at.folder.path, 'tls'));
    process.kill(child.pid, 'SIGHUP');

    await child.output(/rotated to certificate/);
  });

  it('drains on the first Ctrl-C, and ends at once on the second', async () => {
    using at = await place();
    await using app = await program();
    const port = await freePort();
    const file = at.folder.write('sidecar.yaml', yamlOf(at, port, app, '').replace('graceMs: 300', 'graceMs: 60000'));
    await using child = at.run(['sidecar', '--config', file]);
    await child.output(/readiness ready/);
    using web = await callerAt(
      { host: '127.0.0.1', port },
      { authority: at.authority, credentials: at.authority.issue({ id: idOf('web') }) },
    );
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));

    process.kill(child.pid, 'SIGINT');
    await child.output(/the sidecar is draining/);
    web.socket.write(' again');
    await eventually(() => assert.equal(web.text(), 'hello again'));
    const { code } = await child.stop('SIGINT');

    assert.equal(code, 1);
  });
});
