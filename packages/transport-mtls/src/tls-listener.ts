import { createServer as createTcpServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import {
  CallError,
  type Endpoint,
  type EventMap,
  every,
  type HandshakeRefusal,
  handshakeRefusal,
  isWildcard,
  type Listener,
  type PeerIdentity,
  type PeerVerdict,
  presentedPeer,
  revocationProblem,
  type ServerHost,
  serverTlsOptions,
  type Timer,
  type TlsMaterial,
  verifyPeer,
} from '@sallyport/core/spi';
import { coarse, lifeOf, spread } from './connection-life.js';
import { FloodGuard, maxUnexplainedOfPeer } from './flood-guard.js';
import { type LaneConnection, type MakeServerLane, NO_PROTOCOL, type ServerLane } from './lane.js';
import { type ProxiedAddresses, readProxyHeader } from './proxy-header.js';
import type { ResolvedServerOptions } from './server-options.js';
import { tcpOf } from './tcp-below.js';

/** How often connections are checked for floods and certificates that end, ms. */
const PATROL_MS = 1000;
/** How long a connection whose handshake ends while the server drains has for its first call, ms. */
const LATECOMER_MS = 300;
/** How long whoever was closed for abuse stays outside: else the next connection would go on where the last one ended. */
const BARRED_MS = 10_000;
/** Stands for no protocol in a list that must not be empty. */
const NOBODYS_PROTOCOL = 'sallyport-none';

/** Makes a server listen on an address. Rejects, with nothing bound, when that cannot be had. */
export type Bind = (server: NetServer, address: Endpoint) => Promise<unknown>;

/**
 * Binds the port and serves until closed. Rejects, with nothing bound, when the address cannot be had. `bind`: for a process that
 * has been given its sockets.
 */
export async function listen(
  host: ServerHost,
  options: ResolvedServerOptions,
  lanes: readonly MakeServerLane[],
  bind: Bind = bindAnew,
): Promise<Listener> {
  const listener = new TlsListener(host, options, lanes, bind);
  await listener.bind();
  return listener;
}

interface Accepted {
  readonly identity: PeerIdentity;
  readonly guard: FloodGuard;
  readonly lane: LaneConnection;
  readonly revocationKeys: readonly string[];
  /** When the first of the two certificates it was opened with ends; ms since the epoch. */
  readonly endsAt: number;
}

interface Admission {
  readonly ok: true;
  readonly lane: ServerLane;
  readonly identity: PeerIdentity;
  readonly revocationKeys: readonly string[];
}

type Eviction = Pick<EventMap['connection-closed-by-policy'], 'reason' | 'detail'>;
type Refusal = Extract<PeerVerdict, { ok: false }>;

/** The one door: TCP, TLS 1.3 with a client certificate, identity, ALPN; then the lane of that protocol takes over. */
class TlsListener implements Listener {
  readonly #host: ServerHost;
  readonly #options: ResolvedServerOptions;
  readonly #lanes: ReadonlyMap<string, ServerLane>;
  readonly #bind: Bind;
  readonly #server: Server;
  /** What listens: the same, or before it one that reads what balancers put before the handshake. */
  readonly #door: NetServer;
  /** By the TCP sockets of balancers. */
  readonly #proxied = new WeakMap<Socket, ProxiedAddresses>();
  readonly #sockets = new Set<Socket>();
  readonly #accepted = new Map<TLSSocket, Accepted>();
  readonly #perPeer = new Map<string, number>();
  /** Identities that were closed for abuse, and until when (ms since the epoch) they are not let in. */
  readonly #barred = new Map<string, number>();
  readonly #patrol: Timer;
  readonly #unsubscribe: () => void;
  #closed: Promise<void> | undefined;
  /** While it drains: when that is over, ms since the epoch. */
  #drainsUntil: number | undefined;
  #endpoints: readonly Endpoint[] = [];

  constructor(host: ServerHost, options: ResolvedServerOptions, makeLanes: readonly MakeServerLane[], bind: Bind) {
    this.#host = host;
    this.#options = options;
    this.#bind = bind;
    this.#lanes = new Map(makeLanes.map((make) => make(host, options.limits)).map((lane) => [lane.protocol, lane]));
    this.#server = createServer({
      ...serverTlsOptions(host.tls.current()),
      ALPNProtocols: offered([...this.#lanes.keys()]),
      handshakeTimeout: options.limits.handshakeTimeoutMs,
    });
    this.#door = options.balancers === undefined ? this.#server : createTcpServer();
    this.#door.maxConnections = options.limits.maxConnections;
    this.#door.on('connection', (socket: Socket) => {
      // Lanes write whole turns: holding a small one back until the last is acknowledged (Nagle) costs up to 40 ms.
      socket.setNoDelay(true);
      this.#track(socket);
      // Before its handshake, which would show a certificate that is not ours to use; the error below tells of it.
      if (host.tls.suspended) socket.destroy();
      else if (this.#door !== this.#server) void this.#letThrough(socket);
    });
    this.#door.on('drop', (drop) => {
      this.#refused('too-many-connections', 'the limit of connections is reached', drop?.remoteAddress);
    });
    this.#server.on('tlsClientError', (error, socket) => {
      const { reason, detail } = host.tls.suspended ?? handshakeRefusal(error, socket);
      this.#refused(reason, detail, this.#addressOf(socket));
      // Without it a socket whose handshake timed out stays open.
      socket.destroy();
    });
    this.#server.on('secureConnection', (socket) => this.#admit(socket));
    this.#unsubscribe = host.tls.onChange((material) => this.#follow(material));
    this.#patrol = every(host.clock, PATROL_MS, () => this.#inspect());
  }

  get endpoints(): readonly Endpoint[] {
    return this.#endpoints;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  async bind(): Promise<void> {
    const { address, advertise, allowWildcardBind } = this.#options;
    try {
      await this.#bind(this.#door, address);
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#door.on('error', (error: NodeJS.ErrnoException) => {
      this.#host.events.emit('accept-failed', { detail: error.code ?? error.name });
    });
    const bound = this.#door.address() as { address: string; port: number };
    const advertised = advertise ?? { host: address.host, port: bound.port };
    this.#endpoints = [{ host: advertised.host, port: advertised.port === 0 ? bound.port : advertised.port }];
    this.#host.events.emit('listening', {
      address: `${bound.address}:${bound.port}`,
      ...(allowWildcardBind && isWildcard(address.host) ? { reason: allowWildcardBind.reason } : {}),
    });
  }

  async drain(graceMs: number): Promise<void> {
    this.#stopAccepting();
    const deadline = Date.now() + graceMs;
    this.#drainsUntil = deadline;
    for (const { lane } of this.#accepted.values()) lane.drain(graceMs);
    while (this.#accepted.size > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
    await this.close();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#patrol.cancel();
    this.#unsubscribe();
    const closed = this.#door.listening ? new Promise<void>((resolve) => this.#door.once('close', resolve)) : undefined;
    this.#stopAccepting();
    for (const lane of this.#lanes.values()) lane.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #stopAccepting(): void {
    if (this.#door.listening) this.#door.close();
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    // Asked for now, the socket remembers it after its end.
    void socket.remoteAddress;
    socket.once('close', () => this.#sockets.delete(socket));
  }

  /** Whoever is no declared balancer begins with TLS: a header of theirs is plaintext on its port. */
  async #letThrough(socket: Socket): Promise<void> {
    const { limits, balancers } = this.#options;
    const { remoteAddress } = socket;
    if (remoteAddress !== undefined && balancers?.includes(remoteAddress)) {
      socket.on('error', ignore);
      try {
        const addresses = await readProxyHeader(socket, this.#host.clock, limits.handshakeTimeoutMs);
        if (addresses) this.#proxied.set(socket, addresses);
      } catch (error) {
        this.#refused('proxy-header', (error as Error).message, remoteAddress);
        socket.destroy();
        return;
      }
      // It may have gone, or the identity have been withdrawn, while the header was read.
      if (socket.destroyed || this.#host.tls.suspended) {
        socket.destroy();
        return;
      }
    }
    this.#server.emit('connection', socket);
  }

  #admit(socket: TLSSocket): void {
    const verdict = this.#judge(socket);
    if (verdict.ok) {
      this.#serve(socket, verdict);
    } else {
      socket.on('error', ignore);
      this.#refused(verdict.reason, verdict.detail, this.#addressOf(socket), verdict.peer);
      socket.destroy();
    }
  }

  /** What TLS itself does not decide: protocol, resumption, identity, and how many connections one identity may have. */
  #judge(socket: TLSSocket): Admission | Refusal {
    // Node accepts a client that offers no protocol at all: there is a lane for it only where one was asked for.
    const lane = this.#lanes.get(socket.alpnProtocol || NO_PROTOCOL);
    if (!lane) return refusal('alpn', `the client offers none of ${offered([...this.#lanes.keys()]).join(', ')}`);
    if (socket.isSessionReused()) return refusal('resumed', 'a resumed session shows no certificate');
    const presented = presentedPeer(socket);
    if (!presented) return refusal('no-certificate', 'the client presented no certificate');
    const verdict = verifyPeer(presented, this.#host.tls.current());
    if (!verdict.ok) return verdict;
    const { peer: identity, revocationKeys } = verdict;
    if (this.#barred.has(identity.id)) {
      return refusal('abuse', 'a connection of this identity was closed for abuse a moment ago', identity.id);
    }
    const open = this.#perPeer.get(identity.id) ?? 0;
    if (open >= this.#options.limits.maxConnectionsPerPeer) {
      return refusal('too-many-connections', `${open} connections of this identity are open`, identity.id);
    }
    return { ok: true, lane, identity, revocationKeys };
  }

  #serve(socket: TLSSocket, { lane, identity, revocationKeys }: Admission): void {
    const { maxConnectionAgeMs, maxConnectionAgeGraceMs } = this.#options.limits;
    const guard = new FloodGuard(this.#options.limits.maxMessageBytes);
    this.#perPeer.set(identity.id, (this.#perPeer.get(identity.id) ?? 0) + 1);
    const addresses = this.#proxiedBy(socket);
    const connection = lane.accept(socket, { identity, guard, ...(addresses ? { addresses } : {}) });
    const { clock, tls } = this.#host;
    const { endsAt, drainAt } = lifeOf([identity, tls.current()], maxConnectionAgeGraceMs, clock.now());
    this.#accepted.set(socket, { identity, guard, lane: connection, revocationKeys, endsAt });
    // While the server drains the others have been told. What comes with the connection is answered first.
    const ageMs = this.#drainsUntil === undefined ? spread(maxConnectionAgeMs) : LATECOMER_MS;
    const age = clock.after(Math.min(ageMs, coarse(drainAt - clock.now())), () => {
      const leftMs = Math.min(endsAt, this.#drainsUntil ?? Number.POSITIVE_INFINITY) - clock.now();
      connection.drain(Math.min(maxConnectionAgeGraceMs, Math.max(1, leftMs)));
    });
    socket.on('error', (error) => this.#failed(error, socket, { identity, guard }));
    socket.once('close', () => {
      age.cancel();
      if (guard.isFlood) this.#barred.set(identity.id, this.#host.clock.now() + BARRED_MS);
      this.#accepted.delete(socket);
      const left = (this.#perPeer.get(identity.id) ?? 1) - 1;
      if (left > 0) this.#perPeer.set(identity.id, left);
      else this.#perPeer.delete(identity.id);
      connection.release();
    });
  }

  /** New handshakes use new material at once; whoever must not stay leaves at once, and without an identity everybody. */
  #follow(material: TlsMaterial): void {
    const { suspended } = this.#host.tls;
    if (suspended) {
      for (const [socket, { identity }] of this.#accepted) this.#evict(socket, identity, suspended);
      for (const socket of this.#sockets) socket.destroy();
      return;
    }
    // setSecureContext resets whatever it is not given again, the minimum version among it.
    this.#server.setSecureContext(serverTlsOptions(material));
    const now = this.#host.clock.now();
    for (const [socket, { identity, revocationKeys }] of this.#accepted) {
      const problem = revocationProblem(material, revocationKeys, now);
      if (problem) this.#evict(socket, identity, problem);
    }
  }

  #inspect(): void {
    const now = this.#host.clock.now();
    for (const [id, until] of this.#barred) if (until <= now) this.#barred.delete(id);
    const floods = this.#floods();
    for (const [socket, accepted] of this.#accepted) {
      const { identity, endsAt } = accepted;
      if (floods.has(accepted)) {
        this.#barred.set(identity.id, now + BARRED_MS);
        this.#evict(socket, identity, { reason: 'abuse', detail: 'flood of frames that carry no call' });
      } else if (now > endsAt) {
        this.#evict(socket, identity, { reason: 'expired', detail: 'a certificate it was opened with has expired' });
      }
    }
  }

  /** Connections that exceed what one may, and all that have a part in it where those of one identity exceed it together. */
  #floods(): ReadonlySet<Accepted> {
    const unexplained = new Map<string, number>();
    for (const [socket, { identity, guard }] of this.#accepted) {
      guard.account(socket.bytesRead, socket.bytesWritten);
      unexplained.set(identity.id, (unexplained.get(identity.id) ?? 0) + guard.unexplained);
    }
    const limit = maxUnexplainedOfPeer(this.#options.limits.maxMessageBytes);
    const isFlood = ({ identity, guard }: Accepted) =>
      guard.isFlood || (guard.unexplained > 0 && (unexplained.get(identity.id) ?? 0) > limit);
    return new Set([...this.#accepted.values()].filter(isFlood));
  }

  /**
   * Connections end with errors all the time; those of the HTTP/2 engine say that the peer broke the protocol. Newer ones (of Node 24 and
   * 26) end floods so, before we look: that was one where calls do not explain what came.
   */
  #failed(error: NodeJS.ErrnoException, socket: TLSSocket, { identity, guard }: Pick<Accepted, 'identity' | 'guard'>) {
    if (!error.code?.startsWith('ERR_HTTP2_')) return;
    this.#host.events.emit('connection-closed-by-policy', {
      peer: identity.id,
      reason: 'abuse',
      detail: error.message,
    });
    guard.account(socket.bytesRead, socket.bytesWritten);
    if (guard.unexplained > 0) guard.report();
  }

  #evict(socket: TLSSocket, identity: PeerIdentity, { reason, detail }: Eviction): void {
    this.#host.events.emit('connection-closed-by-policy', { peer: identity.id, reason, detail });
    socket.destroy();
  }

  #proxiedBy(socket: TLSSocket): ProxiedAddresses | undefined {
    const tcp = tcpOf(socket);
    return tcp && this.#proxied.get(tcp);
  }

  /**
   * Node has closed the connection already when it tells of a refused certificate, and the TLS socket has forgotten who it
   * was; the TCP socket below has not.
   */
  #addressOf(socket: TLSSocket): string | undefined {
    return this.#proxiedBy(socket)?.remoteAddress ?? socket.remoteAddress ?? tcpOf(socket)?.remoteAddress;
  }

  #refused(reason: HandshakeRefusal, detail: string, remoteAddress: string | undefined, peer?: string): void {
    this.#host.events.emit('handshake-refused', {
      reason,
      detail,
      remoteAddress: remoteAddress ?? 'unknown',
      ...(peer === undefined ? {} : { peer }),
    });
  }
}

async function bindAnew(server: NetServer, { host, port }: Endpoint): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (error) {
    const why = bindProblem((error as NodeJS.ErrnoException).code ?? 'unknown error');
    throw new CallError('UNAVAILABLE', `cannot listen on ${host}:${port}: ${why}`, { cause: error });
  }
}

const bindProblems: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there',
  EADDRNOTAVAIL: 'this machine has no such address',
  EACCES: 'this user may not use the port',
  ENOTFOUND: 'there is no such host',
};

function bindProblem(code: string): string {
  const problem = bindProblems[code];
  return problem === undefined ? code : `${problem} (${code})`;
}

/**
 * OpenSSL refuses a client whose protocols do not fit only where the server has some (RFC 7301 §3.2): a lane for those who offer
 * none must not take those who came for another.
 */
function offered(protocols: readonly string[]): string[] {
  const named = protocols.filter((protocol) => protocol !== NO_PROTOCOL);
  return named.length > 0 ? named : [NOBODYS_PROTOCOL];
}

function refusal(reason: HandshakeRefusal, detail: string, peer?: string): Refusal {
  return { ok: false, reason, detail, ...(peer === undefined ? {} : { peer }) };
}

function ignore(): void {}
