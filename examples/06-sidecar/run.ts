/**
 * Two Python programs that know nothing of TLS, each a member of the mesh by a sidecar beside it.
 *
 *   npm run setup && node examples/dist/06-sidecar/run.js
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as passes } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createAuthority } from 'sallyport/pki';

const execute = promisify(execFile);
const trustDomain = 'example.org';
const id = (name: string) => `spiffe://${trustDomain}/svc/${name}`;
const here = (file: string) => fileURLToPath(new URL(`../../06-sidecar/${file}`, import.meta.url));
const sallyport = fileURLToPath(import.meta.resolve('@sallyport/cli/package.json')).replace(
  'package.json',
  'dist/main.js',
);

const folder = await mkdtemp(join(tmpdir(), 'sallyport-sidecar-'));
const authority = createAuthority({ trustDomain });
const started: ChildProcess[] = [];

try {
  await execute('python3', ['--version']);
  await show();
} catch (error) {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  console.log('there is no python3 on this machine');
} finally {
  for (const child of started) child.kill();
  await endOf(pidFileOf('ledger'));
  await rm(folder, { recursive: true });
}

async function show(): Promise<void> {
  const [ledger = 0, door = 0, outbound = 0, other = 0] = await freePorts(4);

  // The ledger, which only its own machine reaches, and its door.
  start('python3', [here('ledger.py'), String(ledger)]);
  await sidecar('ledger', {
    proxy_address: `127.0.0.1:${door}`,
    proxy_target: `127.0.0.1:${ledger}`,
    proxy_protocol: 'http',
    proxy_allow: `${id('shop')}=GET /v1/entries/*`,
    proxy_update: 'handover',
    proxy_pid_file: pidFileOf('ledger'),
  });

  // The shop, and what it may reach.
  await sidecar('shop', {
    proxy_outbound: `127.0.0.1:${outbound}`,
    proxy_upstream: `ledger=127.0.0.1:${door}`,
    proxy_update: 'restart',
  });
  const shop = (...urls: string[]) => program('shop.py', outbound, urls);

  console.log(await shop('http://ledger/v1/entries/42'));
  console.log(await shop('http://ledger/v1/audits/42')); // no rule names it
  console.log(await shop('http://billing/v1/invoices')); // nobody declared it

  // Somebody else of the mesh, with a sidecar that may reach the ledger as far as it goes.
  await sidecar('reporter', {
    proxy_outbound: `127.0.0.1:${other}`,
    proxy_upstream: `ledger=127.0.0.1:${door}`,
    proxy_update: 'restart',
  });
  console.log(`the reporter: ${await program('shop.py', other, ['http://ledger/v1/entries/42'])}`);

  // A new version takes over the door while the shop goes on asking.
  const asking = shop(...Array.from({ length: 200 }, (_, entry) => `http://ledger/v1/entries/${entry}`));
  const { stdout } = await execute(process.execPath, [
    ...[sallyport, 'sidecar', 'update', '--proxy_pid_file', pidFileOf('ledger')],
  ]);
  console.log(`sallyport sidecar update: ${stdout.trim()}`);
  const answers = (await asking).split('\n');
  console.log(
    `meanwhile ${answers.filter((line) => line.includes(' 200 ')).length} of ${answers.length} answers were good`,
  );

  // How it is written in many a deployment.
  const careless = ['--proxy_address', ':8081', '--proxy_tls_cert_file', '/certs/server.crt'];
  const refused = await execute(process.execPath, [
    ...[sallyport, 'sidecar', ...careless, '--proxy_tls_key_file', '/certs/server.key'],
  ]).catch(({ stderr }: { stderr: string }) => stderr);
  console.log(`\nsallyport sidecar ${careless.join(' ')} --proxy_tls_key_file /certs/server.key\n${refused}`);
}

/** Starts the sidecar of a program with an identity of its own. Resolves when it listens. */
async function sidecar(name: string, flags: Readonly<Record<string, string>>): Promise<void> {
  const { certificatePem, privateKeyPem } = authority.issue({ id: id(name) });
  const files = {
    proxy_tls_cert_file: await written(`${name}.pem`, certificatePem),
    proxy_tls_key_file: await written(`${name}.key`, privateKeyPem),
    proxy_tls_ca_file: await written('bundle.pem', authority.bundlePem),
  };
  const args = Object.entries({ proxy_name: name, ...flags, ...files }).flatMap(([flag, value]) => [
    `--${flag}`,
    value,
  ]);
  console.log(`$ sallyport sidecar ${args.join(' ').replaceAll(folder, '.')}`);
  start(process.execPath, [sallyport, 'sidecar', ...args]);
  await answers(flags.proxy_address ?? flags.proxy_outbound ?? '');
}

async function program(file: string, proxyPort: number, args: readonly string[]): Promise<string> {
  const env = { ...process.env, http_proxy: `http://127.0.0.1:${proxyPort}`, no_proxy: '' };
  const { stdout } = await execute('python3', [here(file), ...args], { env, timeout: 30_000 });
  return stdout.trim();
}

function start(command: string, args: readonly string[]): void {
  started.push(spawn(command, args, { stdio: 'ignore' }));
}

function written(name: string, content: string): Promise<string> {
  const path = join(folder, name);
  return writeFile(path, content, { mode: 0o600 }).then(() => path);
}

function pidFileOf(name: string): string {
  return join(folder, `${name}.pid`);
}

/** The process that took over is no child of ours. */
async function endOf(pidFile: string): Promise<void> {
  if (!existsSync(pidFile)) return;
  process.kill(Number.parseInt(await readFile(pidFile, 'utf8'), 10));
  while (existsSync(pidFile)) await passes(20);
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) server.close();
  return ports;
}

/** Resolves when somebody listens there; gives up after ten seconds. */
async function answers(address: string): Promise<void> {
  const { hostname, port } = new URL(`tcp://${address}`);
  for (let attempt = 0; attempt < 200; attempt++) {
    const socket = connect(Number(port), hostname);
    const isThere = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isThere) return;
    await passes(50);
  }
  throw new Error(`nobody listens on ${address}`);
}
