import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import type { Authority, IdentityFiles } from '@sallyport/pki';
import { type TemporaryFolder, temporaryFolder } from '../temporary-folder.js';
import { ConsulAcl, type ConsulToken } from './consul-acl.js';
import { httpsRequest } from './https-request.js';
import { freePorts } from './ports.js';
import { ServerCluster, type ServerNode } from './server-cluster.js';
import { ServerProcess } from './server-process.js';

export interface ConsulServerOptions {
  /** Signs the servers' certificate, and those of whoever may connect. */
  readonly pki: Authority;
  /** Default 1. */
  readonly servers?: 1 | 3;
  /** The agents show their certificate when they check services, and know our CA then. Default false, as Consul's. */
  readonly tlsForChecks?: boolean;
}

/**
 * Consul 1.8.7 as it should be run: HTTPS alone, certificates asked of both sides, ACLs that deny by default. It differs from
 * docs/registry-servers.md in ports and timing only.
 */
export class ConsulServer extends ServerCluster<ConsulNode> {
  /** Policies and tokens for the tests. They survive `wipe`. */
  readonly acl: ConsulAcl;
  readonly #client: ConsulClient;
  #agentToken: ConsulToken | undefined;

  static async start({ pki, servers = 1, tlsForChecks = false }: ConsulServerOptions): Promise<ConsulServer> {
    const folder = temporaryFolder();
    const identity = pki.issue({
      id: `spiffe://${pki.trustDomain}/registry/consul`,
      dns: ['server.dc1.consul', 'localhost'],
      ip: ['127.0.0.1'],
    });
    const certificate = { ca: pki.bundlePem, cert: identity.certificatePem, key: identity.privateKeyPem };
    const client: ConsulClient = { agent: new Agent(certificate), token: randomUUID() };
    const files = await identity.write(folder.path, { name: 'server' });
    const server = new ConsulServer(
      folder,
      client,
      await prepareNodes(folder.path, client, files, servers, tlsForChecks),
    );
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
    super(folder, nodes);
    this.#client = client;
    this.acl = new ConsulAcl((method, path, body) => this.api(method, path, body));
  }

  /** Asks a server that runs, with the management token. Resolves with the JSON; rejects if the status is not 2xx. */
  async api(method: string, path: string, body?: unknown): Promise<unknown> {
    const [node] = this.running;
    if (node === undefined) throw new Error('no server runs');
    return await ask(this.#client, node.address, method, path, body);
  }

  override async leader(): Promise<number> {
    const raftAddress = await this.api('GET', '/v1/status/leader');
    const index = this.nodes.findIndex((node) => node.raftAddress === raftAddress && node.process.running);
    if (index < 0) throw new Error('there is no leader');
    return index;
  }

  override async wipe(): Promise<void> {
    await this.restartEmpty();
    await this.acl.recreate();
    await this.#lendAgentToken();
  }

  override async stop(): Promise<void> {
    await super.stop();
    this.#client.agent.destroy();
  }

  /** The agents act in their own name, so that they can keep their nodes in the catalogue; no service needs to do that. */
  async #introduceAgents(): Promise<void> {
    await this.acl.policy('agent', 'node_prefix "" { policy = "write" }\nservice_prefix "" { policy = "read" }');
    this.#agentToken = await this.acl.token({ policies: ['agent'] });
    await this.#lendAgentToken();
  }

  async #lendAgentToken(): Promise<void> {
    const body = { Token: this.#agentToken?.secretId };
    for (const { address } of this.nodes) await ask(this.#client, address, 'PUT', '/v1/agent/token/agent', body);
  }
}

interface ConsulNode extends ServerNode {
  readonly raftAddress: string;
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
  tlsForChecks: boolean,
): Promise<ConsulNode[]> {
  const gossipKey = randomBytes(32).toString('base64');
  const ports = await Promise.all(Array.from({ length: count }, portsOfNode));
  const lan = ports.map(({ serf_lan }) => `127.0.0.1:${serf_lan}`);
  return ports.map((own, index) => {
    const home = join(folder, `server-${index}`);
    mkdirSync(home, { mode: 0o700 });
    const configuration = {
      ...secureConfiguration(files, client.token, gossipKey),
      node_name: `server-${index}`,
      data_dir: join(home, 'data'),
      bootstrap_expect: count,
      enable_agent_tls_for_checks: tlsForChecks,
      ports: { ...own, http: -1, dns: -1, grpc: -1, serf_wan: -1 },
      retry_join: lan,
      retry_interval: '250ms',
    };
    writeFileSync(join(home, 'consul.json'), JSON.stringify(configuration), { mode: 0o600 });
    const address = `https://127.0.0.1:${own.https}`;
    const process = new ServerProcess({
      program: 'consul-1.8.7',
      args: ['agent', '-config-file', join(home, 'consul.json')],
      folder: home,
      temporary: folder,
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
