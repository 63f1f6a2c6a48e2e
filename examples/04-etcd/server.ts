import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Authority, createAuthority } from 'sallyport/pki';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
/** What the tests of this repository have fetched is found as well. */
const PATH = [process.env.PATH, join(repository, '.cache', 'servers', 'bin')].join(delimiter);
const names = ['', '-3.5', '-3.4'];

export interface Etcd {
  /** `https://127.0.0.1:<port>` */
  readonly endpoint: string;
  /** Runs a command of etcdctl as root. */
  administer(command: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the etcd of `etcd.yaml` in the folder, on free ports, and enables authentication. Undefined: there is no etcd here. */
export async function startEtcd(folder: string, authority: Authority): Promise<Etcd | undefined> {
  const name = await firstInstalled();
  if (name === undefined) return undefined;
  const [port, peerPort] = [await freePort(), await freePort()];
  const endpoint = `https://127.0.0.1:${port}`;
  await writeCertificates(folder, authority);
  const configuration = await readFile(join(repository, 'examples', '04-etcd', 'etcd.yaml'), 'utf8');
  const ours = configuration.replaceAll(':2379', `:${port}`).replaceAll(':2380', `:${peerPort}`);
  await writeFile(join(folder, 'etcd.yaml'), ours);

  const server = spawn(`etcd${name}`, ['--config-file', 'etcd.yaml'], { cwd: folder, env: { PATH }, stdio: 'ignore' });
  const env = {
    PATH,
    ETCDCTL_API: '3',
    ETCDCTL_ENDPOINTS: endpoint,
    ETCDCTL_CACERT: 'tls/bundle.pem',
    ETCDCTL_CERT: 'tls/root.pem',
    ETCDCTL_KEY: 'tls/root.key',
  };
  const administer = async (command: string) => {
    const [program, ...args] = command.split(' ');
    await promisify(execFile)(`${program}${name}`, args, { cwd: folder, env });
  };
  const stop = () => end(server);
  try {
    await untilHealthy(() => administer('etcdctl endpoint health'));
    await administer('etcdctl role add root');
    await administer('etcdctl user add root --no-password');
    await administer('etcdctl user grant-role root root');
    await administer('etcdctl auth enable');
    return { endpoint, administer, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function firstInstalled(): Promise<string | undefined> {
  for (const name of names) {
    const found = await promisify(execFile)(`etcd${name}`, ['--version'], { env: { PATH } }).catch(() => undefined);
    if (found) return name;
  }
  return undefined;
}

/** The servers trust each other by an authority of their own, so that no service can join the cluster. */
async function writeCertificates(folder: string, authority: Authority): Promise<void> {
  const { trustDomain } = authority;
  const server = { id: `spiffe://${trustDomain}/registry/etcd`, dns: ['localhost'], ip: ['127.0.0.1'] };
  await authority.issue(server).write(join(folder, 'tls'), { name: 'server' });
  await createAuthority({ trustDomain }).issue(server).write(join(folder, 'peer-tls'), { name: 'peer' });
  const root = authority.issueRaw({ id: `spiffe://${trustDomain}/admin/root`, subject: { commonName: 'root' } });
  await root.write(join(folder, 'tls'), { name: 'root' });
}

async function untilHealthy(ask: () => Promise<void>): Promise<void> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  return typeof address === 'object' && address ? address.port : 0;
}

async function end(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const exited = once(server, 'exit');
  server.kill('SIGTERM');
  await exited;
}
