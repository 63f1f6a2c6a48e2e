import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import type { Authority, IdentityFiles } from '@sallyport/pki';
import { eventually } from '../eventually.js';
import { type TemporaryFolder, temporaryFolder } from '../temporary-folder.js';
import { ConsulAcl, type ConsulToken } from './consul-acl.js';
import { httpsRequest } from './https-request.js';
import { freePorts } from './ports.js';
import { ServerProcess } from './server-process.js';

export interface ConsulServerOptions {
  /** Signs the servers' certificate, and those of whoever may connect. */
  readonly pki: Authority;
  /** Default 1. */
  readonly servers?: 1 | 3;
}

/**
 * Consul 1.8.7 as it should be run: HTTPS alone, certificates asked of both sides, ACLs that deny by default. It differs from
 * docs/registry-servers.md in ports and timing only.
 */
export class ConsulServer implements AsyncDisposable {
  /** Policies and tokens for the tests. They survive `wipe`. */
  readonly acl: ConsulAcl;
  readonly #folder: TemporaryFolder;
  readonly #client: ConsulClient;
  readonly #nodes: readonly ConsulNode[];
  #agentToken: ConsulToken | undefined;

  static async start({ pki, servers = 1 }: ConsulServerOptions): Promise<ConsulServer> {
    const folder = temporaryFolder();
    const identity = pki.issue({
      id: `spiffe://${pki.trustDomain}/registry/consul`,
      dns: ['server.dc1.consul', 'localhost'],
      ip: ['127.0.0.1'],
    });
    const certificate = { ca: pki.bundlePem, cert: identity.certificatePem, key: identity.privateKeyPem };
    const client: ConsulClient = { agent: new Agent(certificate), token: randomUUID() };
    const files = await identity.write(folder.path, { name: 'server' });
    const server = new ConsulServer(folder, client, await prepareNodes(folder.path, client, files, servers));
    try {
      await server.restart();
      await server.#introduceAgents();
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  private constructor(folder: TemporaryFolder, client: ConsulClient, nodes: readonly ConsulNode[]) {
    this.#folder = folder;
    this.#client = client;
    this.#nodes = nodes;
    this.acl = new ConsulAcl((method, path, body) => this.api(method, path, body));
  }

  /** `https://127.0.0.1:<port>` of the first server. */
  get address(): string {
    return this.#node(0).address;
  }

  /** The same of all servers. */
  get addresses(): string[] {
    return this.#nodes.map(({ address }) => address);
  }

  /** Which server leads, as one that runs sees it. Rejects while there is no leader. */
  async leader(): Promise<number> {
    const raftAddress = await this.api('GET', '/v1/status/leader');
    const index = this.#nodes.findIndex((node) => node.raftAddress === raftAddress && node.process.running);
    if (index < 0) throw new Error('there is no leader');
    return index;
  }

  /** Kills the leader and resolves with its index. The others may not have a new one yet. */
  async killLeader(): Promise<number> {
    const index = await this.leader();
    await this.kill(index);
    return index;
  }

  /** SIGKILL for one server or, without an index, for all. */
  async kill(index?: number): Promise<void> {
    await Promise.all(this.#chosen(index).map(({ process }) => process.kill()));
  }

  /** Kills and starts one server or, without an index, all, with their data. Resolves when they answer. */
  async restart(index?: number): Promise<void> {
    await this.kill(index);
    await Promise.all(this.#chosen(index).map(({ process }) => process.start()));
  }

  /** All data are lost: the catalogue is empty and the index begins anew. Policies and tokens are made again, as they were. */
  async wipe(): Promise<void> {
    await this.kill();
    for (const { process } of this.#nodes) process.wipe();
    await this.restart();
    await this.acl.recreate();
    await this.#lendAgentToken();
  }

  /** Asks a server that runs, with the management token. Resolves with the JSON; rejects if the status is not 2xx. */
  async api(method: string, path: string, body?: unknown): Promise<unknown> {
    const node = this.#nodes.find(({ process }) => process.running);
    if (node === undefined) throw new Error('no server runs');
    return await ask(this.#client, node.address, method, path, body);
  }

  async stop(): Promise<void> {
    await this.kill();
    this.#client.agent.destroy();
    this.#folder[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #node(index: number): ConsulNode {
    const node = this.#nodes[index];
    if (node === undefined) throw new RangeError(`there is no server ${index}`);
    return node;
  }

  #chosen(index: number | undefined): readonly ConsulNode[] {
    return index === undefined ? this.#nodes : [this.#node(index)];
  }

  /** The agents act in their own name, so that they can keep their nodes in the catalogue; no service needs to do that. */
  async #introduceAgents(): Promise<void> {
    await this.acl.policy('agent', 'node_prefix "" { policy = "write" }\nservice_prefix "" { policy = "read" }');
    this.#agentToken = await this.acl.token({ policies: ['agent'] });
    await this.#lendAgentToken();
  }

  async #lendAgentToken(): Promise<void> {
    const body = { Token: this.#agentToken?.secretId };
    for (const { address } of this.#nodes) {
      // A follower does not know the new token before the entry of the leader's log has reached it.
      await eventually(() => ask(this.#client, address, 'PUT', '/v1/agent/token/agent', body));
    }
  }
}

interface ConsulNode {
  readonly address: string;
  readonly raftAddress: string;
  readonly process: ServerProcess;
}

interface ConsulClient {
  readonly agent: Agent;
  readonly token: string;
}

interface ConsulPorts {
  readonly https: number;
  readonly server: number;
  readonly serf_lan: number;
}

async function prepareNodes(
  folder: string,
  client: ConsulClient,
  files: IdentityFiles,
  count: number,
): Promise<ConsulNode[]> {
  const gossipKey = randomBytes(32).toString('base64');
  const ports = await Promise.all(Array.from({ length: count }, portsOfNode));
  const join_ = ports.map(({ serf_lan }) => `127.0.0.1:${serf_lan}`);
  return ports.map((own, index) => {
    const home = join(folder, `server-${index}`);
    mkdirSync(home, { mode: 0o700 });
    const configuration = {
      ...secureConfiguration(files, client.token, gossipKey),
      node_name: `server-${index}`,
      data_dir: join(home, 'data'),
      bootstrap_expect: count,
      ports: { ...own, http: -1, dns: -1, grpc: -1, serf_wan: -1 },
      retry_join: join_,
      retry_interval: '250ms',
    };
    writeFileSync(join(home, 'consul.json'), JSON.stringify(configuration), { mode: 0o600 });
    const address = `https://127.0.0.1:${own.https}`;
    const process = new ServerProcess({
      program: 'consul-1.8.7',
      args: ['agent', '-config-file', join(home, 'consul.json')],
      folder: home,
      ready: async () => (await ask(client, address, 'GET', '/v1/acl/token/self')) !== undefined,
    });
    return { address, raftAddress: `127.0.0.1:${own.server}`, process };
  });
}

async function portsOfNode(): Promise<ConsulPorts> {
  const [https = 0, server = 0, serf_lan = 0] = await freePorts(3);
  return { https, server, serf_lan };
}

function secureConfiguration(files: IdentityFiles, managementToken: string, gossipKey: string) {
  return {
    server: true,
    datacenter: 'dc1',
    bind_addr: '127.0.0.1',
    client_addr: '127.0.0.1',
    ca_file: files.ca,
    cert_file: files.cert,
    key_file: files.key,
    verify_incoming: true,
    verify_outgoing: true,
    verify_server_hostname: true,
    tls_min_version: 'tls12',
    encrypt: gossipKey,
    acl: {
      enabled: true,
      default_policy: 'deny',
      enable_token_persistence: true,
      tokens: { master: managementToken },
    },
    performance: { raft_multiplier: 1 },
    disable_update_check: true,
    log_level: 'warn',
  };
}

/** Rejects if the status is not 2xx. Consul's own answer is in the message, the token is not. */
async function ask(client: ConsulClient, address: string, method: string, path: string, body?: unknown) {
  const { status, text } = await httpsRequest({
    method,
    url: `${address}${path}`,
    headers: { 'x-consul-token': client.token },
    body,
    agent: client.agent,
  });
  if (status < 200 || status > 299) throw new Error(`${method} ${path}: ${status} ${text}`);
  const answer: unknown = text === '' ? undefined : JSON.parse(text);
  return answer;
}
