import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import { type Authority, createAuthority, type IdentityFiles, type IssuedIdentity } from '@sallyport/pki';
import { type TemporaryFolder, temporaryFolder } from '../temporary-folder.js';
import { EtcdAuth } from './etcd-auth.js';
import { Etcdctl } from './etcdctl.js';
import { httpsRequest } from './https-request.js';
import { freePorts } from './ports.js';
import { ServerCluster, type ServerNode } from './server-cluster.js';
import { ServerProcess } from './server-process.js';

export interface EtcdServerOptions {
  /** Signs the servers' certificate, and those of whoever may connect. */
  readonly pki: Authority;
  readonly version: '3.4' | '3.5';
  /** Default 1. */
  readonly nodes?: 1 | 3;
  /**
   * A certificate is asked for either way. `certificate` (the default): its common name is the user. `password`: it names
   * nobody, and users log in.
   */
  readonly auth?: 'certificate' | 'password';
  /** How long the token of a login is good without being used, in s. Default 300, as etcd's. */
  readonly authTokenTtlS?: number;
}

export interface EtcdKey {
  readonly key: string;
  readonly value: string;
  /** Decimal; `0` without a lease. */
  readonly lease: string;
  readonly modRevision: string;
}

/**
 * etcd as it should be run: TLS with certificates of both sides, peers under an authority of their own, authentication
 * enabled. It differs from docs/registry-servers.md in ports and timing only.
 */
export class EtcdServer extends ServerCluster<ServerNode> {
  /** Users and roles for the tests. They survive `wipe`. */
  readonly auth: EtcdAuth;
  readonly #etcdctl: Etcdctl;
  readonly #rootPassword: string | undefined;
  readonly #agent: Agent;

  static async start(options: EtcdServerOptions): Promise<EtcdServer> {
    const folder = temporaryFolder();
    const rootPassword = options.auth === 'password' ? randomBytes(24).toString('hex') : undefined;
    const identity = etcdCertificate(options.pki, 'root');
    const agent = new Agent({
      ca: options.pki.bundlePem,
      cert: identity.certificatePem,
      key: identity.privateKeyPem,
    });
    const etcdctl = new Etcdctl({
      program: `etcdctl-${options.version}`,
      files: await identity.write(folder.path, { name: 'root' }),
      user: rootPassword === undefined ? undefined : { name: 'root', password: rootPassword },
    });
    const nodes = await prepareNodes(folder.path, options, agent);
    const server = new EtcdServer(folder, nodes, etcdctl, rootPassword, agent);
    try {
      await server.restart();
      await server.#enableAuth();
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  private constructor(
    folder: TemporaryFolder,
    nodes: readonly ServerNode[],
    etcdctl: Etcdctl,
    rootPassword: string | undefined,
    agent: Agent,
  ) {
    super(folder, nodes);
    this.#etcdctl = etcdctl;
    this.#rootPassword = rootPassword;
    this.#agent = agent;
    this.auth = new EtcdAuth((args, input) => this.#asRoot(args, input));
  }

  override async leader(): Promise<number> {
    for (const { address } of this.running) {
      const [status] = (await this.#etcdctl.ask([address], ['endpoint', 'status'])) as EndpointStatus[];
      if (status?.Status.leader === status?.Status.header.member_id) {
        return this.nodes.findIndex((node) => node.address === address);
      }
    }
    throw new Error('there is no leader');
  }

  override async wipe(): Promise<void> {
    await this.restartEmpty();
    await this.auth.recreate();
    await this.#asRoot(['auth', 'enable']);
  }

  override async stop(): Promise<void> {
    await super.stop();
    this.#agent.destroy();
  }

  /** What is stored under the prefix; left out: everything. */
  async keys(prefix = ''): Promise<EtcdKey[]> {
    const { kvs = [] } = (await this.#etcdctl.ask(this.#endpoints, ['get', '--prefix', '--', prefix])) as RangeAnswer;
    return kvs.map(({ key, value = '', lease = '0', mod_revision }) => ({
      key: Buffer.from(key, 'base64').toString(),
      value: Buffer.from(value, 'base64').toString(),
      lease,
      modRevision: mod_revision,
    }));
  }

  async put(key: string, value: string): Promise<void> {
    await this.#asRoot(['put', '--', key, value]);
  }

  async remove(key: string): Promise<void> {
    await this.#asRoot(['del', '--', key]);
  }

  /** How many watches are open on the first node, as it counts them. */
  async watches(): Promise<number> {
    const { text } = await httpsRequest({ method: 'GET', url: `${this.address}/metrics`, agent: this.#agent });
    return Number(/^etcd_debugging_mvcc_watcher_total (\d+)/m.exec(text)?.[1]);
  }

  /** The revision of the store, decimal. */
  async revision(): Promise<string> {
    const { header } = (await this.#etcdctl.ask(this.#endpoints, ['get', '--', 'any'])) as RangeAnswer;
    return header.revision;
  }

  /** Forgets the history before the present revision. */
  async compact(): Promise<void> {
    await this.#asRoot(['compaction', '--physical', await this.revision()]);
  }

  /** Decimal. */
  async leases(): Promise<string[]> {
    const { leases = [] } = (await this.#etcdctl.ask(this.#endpoints, ['lease', 'list'])) as {
      leases?: { id: string }[];
    };
    return leases.map(({ id }) => id);
  }

  /** `lease` is decimal. */
  async revokeLease(lease: string): Promise<void> {
    await this.#asRoot(['lease', 'revoke', BigInt(lease).toString(16)]);
  }

  async #enableAuth(): Promise<void> {
    await this.auth.role('root', []);
    await this.auth.user('root', { password: this.#rootPassword, roles: ['root'] });
    await this.#asRoot(['auth', 'enable']);
  }

  #asRoot(args: readonly string[], input?: string): Promise<string> {
    return this.#etcdctl.run(this.#endpoints, args, input);
  }

  get #endpoints(): string[] {
    return this.running.map(({ address }) => address);
  }
}

/** A client's certificate for the etcd user of this name: to etcd, the common name is the user. */
export function etcdCertificate(pki: Authority, user: string): IssuedIdentity {
  return pki.issueRaw({
    id: `spiffe://${pki.trustDomain}/svc/${user}`,
    subject: { commonName: user },
    extendedKeyUsage: ['clientAuth'],
  });
}

interface EndpointStatus {
  readonly Status: { readonly header: { readonly member_id: string }; readonly leader: string };
}

interface RangeAnswer {
  readonly header: { readonly revision: string };
  readonly kvs?: readonly { key: string; value?: string; lease?: string; mod_revision: string }[];
}

async function prepareNodes(folder: string, options: EtcdServerOptions, agent: Agent): Promise<ServerNode[]> {
  const { pki, version, nodes: count = 1 } = options;
  const names = { dns: ['localhost'], ip: ['127.0.0.1'] };
  const id = `spiffe://${pki.trustDomain}/registry/etcd`;
  const client = await pki.issue({ id, ...names }).write(join(folder, 'client'), { name: 'server' });
  const peerPki = createAuthority({ trustDomain: pki.trustDomain });
  const peer = await peerPki.issue({ id, ...names }).write(join(folder, 'peer'), { name: 'server' });
  const members = await Promise.all(Array.from({ length: count }, (_, index) => prepareMember(`node-${index}`)));
  return members.map((member) => {
    const home = join(folder, member.name);
    mkdirSync(home, { mode: 0o700 });
    const address = url(member.port);
    const process = new ServerProcess({
      program: `etcd-${version}`,
      args: [
        ...memberArguments(home, member, members),
        ...secureArguments(client, peer, options),
        ...['--heartbeat-interval', '50', '--election-timeout', '500', '--log-level', 'warn', '--logger', 'zap'],
      ],
      folder: home,
      temporary: folder,
      ready: async () => {
        const { status, text } = await httpsRequest({ method: 'GET', url: `${address}/health`, agent });
        return status === 200 && text.includes('"true"');
      },
    });
    return { address, process };
  });
}

interface Member {
  readonly name: string;
  readonly port: number;
  readonly peerPort: number;
}

async function prepareMember(name: string): Promise<Member> {
  const [port = 0, peerPort = 0] = await freePorts(2);
  return { name, port, peerPort };
}

function memberArguments(home: string, { name, port, peerPort }: Member, members: readonly Member[]): string[] {
  return [
    ...['--name', name, '--data-dir', join(home, 'data')],
    ...['--listen-client-urls', url(port), '--advertise-client-urls', url(port)],
    ...['--listen-peer-urls', url(peerPort), '--initial-advertise-peer-urls', url(peerPort)],
    ...['--initial-cluster', members.map((member) => `${member.name}=${url(member.peerPort)}`).join(',')],
    ...['--initial-cluster-state', 'new', '--initial-cluster-token', 'sallyport-test'],
  ];
}

function secureArguments(client: IdentityFiles, peer: IdentityFiles, options: EtcdServerOptions): string[] {
  const { auth = 'certificate', authTokenTtlS = 300 } = options;
  return [
    ...['--trusted-ca-file', client.ca, '--cert-file', client.cert, '--key-file', client.key],
    ...['--peer-trusted-ca-file', peer.ca, '--peer-cert-file', peer.cert, '--peer-key-file', peer.key],
    '--peer-client-cert-auth',
    `--client-cert-auth=${auth === 'certificate'}`,
    '--enable-grpc-gateway=false',
    ...['--auth-token-ttl', String(authTokenTtlS), '--bcrypt-cost', '4'],
  ];
}

function url(port: number): string {
  return `https://127.0.0.1:${port}`;
}
