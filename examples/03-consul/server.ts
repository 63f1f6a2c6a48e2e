import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Authority } from 'sallyport/pki';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
/** What the tests of this repository have fetched is found as well. */
const PATH = [process.env.PATH, join(repository, '.cache', 'servers', 'bin')].join(delimiter);
const names = ['consul', 'consul-1.8.7'];

export interface Consul {
  /** `https://127.0.0.1:<port>` */
  readonly address: string;
  /** Makes a token with one policy (HCL) of the same name; resolves with its secret id. */
  tokenFor(name: string, policy: string): Promise<string>;
  readonly managementToken: string;
  stop(): Promise<void>;
}

/** Starts the Consul of `consul.hcl` in the folder, on free ports, and makes its first tokens. Undefined: there is none here. */
export async function startConsul(folder: string, authority: Authority): Promise<Consul | undefined> {
  const program = await firstInstalled();
  if (program === undefined) return undefined;
  const [https, rpc, gossip] = [await freePort(), await freePort(), await freePort()];
  const address = `https://127.0.0.1:${https}`;
  await authority
    .issue({
      id: `spiffe://${authority.trustDomain}/registry/consul`,
      dns: ['server.dc1.consul', 'localhost'],
      ip: ['127.0.0.1'],
    })
    .write(join(folder, 'tls'), { name: 'server' });
  const configuration = await readFile(join(repository, 'examples', '03-consul', 'consul.hcl'), 'utf8');
  const ours = configuration
    .replace('8501', `${https}`)
    .replace('8300', `${rpc}`)
    .replace('8301', `${gossip}`)
    .replace('GOSSIP_KEY"\n', `${randomBytes(32).toString('base64')}"\n`);
  await writeFile(join(folder, 'consul.hcl'), ours, { mode: 0o600 });

  const args = ['agent', '-config-file', 'consul.hcl'];
  const server = spawn(program, args, { cwd: folder, env: { PATH }, stdio: 'ignore' });
  const env = {
    PATH,
    CONSUL_HTTP_ADDR: address,
    CONSUL_CACERT: 'tls/bundle.pem',
    CONSUL_CLIENT_CERT: 'tls/server.pem',
    CONSUL_CLIENT_KEY: 'tls/server.key',
  };
  /** The token goes by the environment: arguments can be read by everybody on the machine. */
  const administer = async (token: string, ...command: string[]) => {
    const running = promisify(execFile)(program, command, { cwd: folder, env: { ...env, CONSUL_HTTP_TOKEN: token } });
    return (await running).stdout;
  };
  const stop = () => end(server);
  try {
    const managementToken = secretIn(await eventually(() => administer('', 'acl', 'bootstrap', '-format=json')));
    const tokenFor = async (name: string, policy: string) => {
      await administer(managementToken, 'acl', 'policy', 'create', '-name', name, '-rules', policy);
      return secretIn(
        await administer(managementToken, 'acl', 'token', 'create', '-policy-name', name, '-format=json'),
      );
    };
    const agent = await tokenFor('agent', 'node_prefix "" { policy = "write" } service_prefix "" { policy = "read" }');
    await administer(managementToken, 'acl', 'set-agent-token', 'agent', agent);
    return { address, tokenFor, managementToken, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function secretIn(json: string): string {
  return (JSON.parse(json) as { SecretID: string }).SecretID;
}

async function firstInstalled(): Promise<string | undefined> {
  for (const name of names) {
    const found = await promisify(execFile)(name, ['version'], { env: { PATH } }).catch(() => undefined);
    if (found) return name;
  }
  return undefined;
}

/** A new server takes a moment to elect itself. */
async function eventually<T>(ask: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
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
