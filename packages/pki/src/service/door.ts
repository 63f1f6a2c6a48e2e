import { X509Certificate } from 'node:crypto';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import {
  type Clock,
  type EventMap,
  type EventSink,
  enrolmentServerTlsOptions,
  every,
  type HandshakeRefusal,
  handshakeRefusal,
  isWildcard,
  networkOf,
  type PeerIdentity,
  presentedPeer,
  revocationProblem,
  serverTlsOptions,
  type Timer,
  type TlsHandle,
  type TlsMaterial,
  verifyPeer,
} from '@sallyport/core/spi';
import type { ListenAddress, ResolvedAuthorityLimits } from './options.js';
import { AUTHORITY_ALPN } from './protocol.js';
import type { Member } from './registrar.js';

/** Whoever got through the door. */
export interface Visitor {
  /** Its IP address; of IPv6 the /64, because whoever has one address there has all of them. */
  readonly address: string;
  /** Undefined at the enrolment door, which nobody passes with a certificate. */
  readonly member: Member | undefined;
}

export interface DoorOptions {
  /** Whether it asks for a certificate. */
  readonly mutual: boolean;
  readonly address: ListenAddress;
  readonly limits: ResolvedAuthorityLimits;
  readonly tls: TlsHandle;
  readonly clock: Clock;
  readonly events: EventSink;
  /** Why it may listen on every interface. */
  readonly wildcardReason: string | undefined;
  readonly serve: (request: IncomingMessage, response: ServerResponse, visitor: Visitor) => void;
}

const PATROL_MS = 1000;
const GRACE_MS = 2000;
const MAX_HEADER_BYTES = 8192;

interface Inside extends Visitor {
  /** Who shares the limit of connections. */
  readonly sharer: string;
  /** Of its certificate and of those above it; none at the enrolment door. */
  readonly revocationKeys: readonly string[];
}

/** A port with TLS 1.3 in front of HTTP/1.1: judges who comes, counts them, and shows the door to those who are revoked. */
export class Door {
  readonly #options: DoorOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #inside = new Map<TLSSocket, Inside>();
  readonly #perSharer = new Map<string, number>();
  readonly #patrol: Timer;
  readonly #unsubscribe: () => void;
  #requests = 0;
  #closing: Promise<void> | undefined;

  constructor(options: DoorOptions) {
    const { limits, tls, clock } = options;
    this.#options = options;
    this.#server = createServer(
      {
        ...this.#tlsOptions(tls.current()),
        ALPNProtocols: [AUTHORITY_ALPN],
        handshakeTimeout: limits.handshakeTimeoutMs,
        requestTimeout: limits.requestTimeoutMs,
        headersTimeout: limits.requestTimeoutMs,
        connectionsCheckingInterval: Math.min(1000, limits.requestTimeoutMs),
        keepAliveTimeout: limits.requestTimeoutMs,
        maxHeaderSize: MAX_HEADER_BYTES,
      },
      this.#serve,
    );
    this.#server.maxConnections = limits.maxConnections;
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      void socket.remoteAddress; // asked for now, the socket remembers it after its end
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('drop', (drop) => {
      this.#refused('too-many-connections', 'the limit of connections is reached', drop?.remoteAddress);
    });
    this.#server.on('tlsClientError', (error, socket) => {
      const { reason, detail } = handshakeRefusal(error, socket);
      this.#refused(reason, detail, addressOf(socket));
      socket.destroy();
    });
    // Before HTTP has it: what is destroyed here never reaches a parser.
    this.#server.prependListener('secureConnection', (socket) => this.#admit(socket));
    // Upgrades and half-sent requests: the default would leave the socket open.
    this.#server.on('upgrade', (_request, socket) => socket.destroy());
    this.#server.on('connect', (_request, socket) => socket.destroy());
    this.#server.on('clientError', (_error, socket) => socket.destroy());
    this.#unsubscribe = tls.onChange((material) => this.#follow(material));
    this.#patrol = every(clock, PATROL_MS, () => this.#patrolExpired());
  }

  /** Rejects, with nothing bound, when the address cannot be had. Resolves to the port. */
  async open(): Promise<number> {
    const { host, port } = this.#options.address;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen(port, host, () => {
          this.#server.off('error', reject);
          resolve();
        });
      });
    } catch (cause) {
      await this.close();
      const code = (cause as NodeJS.ErrnoException).code ?? 'unknown error';
      throw new Error(`cannot listen on ${host}:${port}: ${code}`, { cause });
    }
    this.#server.on('error', (error: NodeJS.ErrnoException) => {
      this.#options.events.emit('accept-failed', { detail: error.code ?? error.name });
    });
    const bound = this.#server.address() as { address: string; port: number };
    const { wildcardReason: reason } = this.#options;
    this.#options.events.emit('listening', {
      address: `${bound.address}:${bound.port}`,
      ...(reason !== undefined && isWildcard(host) ? { reason } : {}),
    });
    return bound.port;
  }

  /** Lets requests under way end, for 2 s at most, then ends every connection. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#patrol.cancel();
    this.#unsubscribe();
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.once('close', () => resolve()))
      : undefined;
    if (this.#server.listening) this.#server.close();
    const deadline = Date.now() + GRACE_MS;
    while (this.#requests > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #serve: RequestListener = (request, response) => {
    const inside = request.socket instanceof TLSSocket ? this.#inside.get(request.socket) : undefined;
    if (!inside) return void request.socket.destroy();
    this.#requests++;
    response.once('close', () => this.#requests--);
    this.#options.serve(request, response, inside);
  };

  #tlsOptions(material: TlsMaterial) {
    return this.#options.mutual ? serverTlsOptions(material) : enrolmentServerTlsOptions(material);
  }

  #admit(socket: TLSSocket): void {
    socket.on('error', ignore);
    const refusal = this.#judge(socket);
    if (refusal === undefined) return;
    this.#refused(refusal.reason, refusal.detail, socket.remoteAddress, refusal.peer);
    socket.destroy();
  }

  /** Undefined: it is in. */
  #judge(socket: TLSSocket): Refused | undefined {
    const { mutual, limits, tls } = this.#options;
    const address = networkOf(socket.remoteAddress ?? '');
    // Node accepts a client that offers no protocol at all; one of another protocol must not be talked into this one.
    if (socket.alpnProtocol !== AUTHORITY_ALPN)
      return { reason: 'alpn', detail: `the client does not offer ${AUTHORITY_ALPN}` };
    if (socket.isSessionReused()) return { reason: 'resumed', detail: 'a resumed session shows no certificate' };
    if (!mutual)
      return this.#enter(socket, { address, member: undefined, sharer: address, revocationKeys: [] }, limits);
    const presented = presentedPeer(socket);
    if (!presented) return { reason: 'no-certificate', detail: 'the client presented no certificate' };
    const verdict = verifyPeer(presented, tls.current(), this.#options.clock.now());
    if (!verdict.ok) return verdict;
    const leaf = new X509Certificate(presented.raw);
    const { peer, revocationKeys } = verdict;
    return this.#enter(socket, { address, member: { peer, leaf }, sharer: peer.id, revocationKeys }, limits);
  }

  #enter(socket: TLSSocket, inside: Inside, { maxConnectionsPerPeer }: ResolvedAuthorityLimits): Refused | undefined {
    const { sharer, member } = inside;
    const open = this.#perSharer.get(sharer) ?? 0;
    if (open >= maxConnectionsPerPeer) {
      const detail = `${open} connections of ${sharer} are open`;
      return { reason: 'too-many-connections', detail, ...(member ? { peer: member.peer.id } : {}) };
    }
    this.#perSharer.set(sharer, open + 1);
    this.#inside.set(socket, inside);
    socket.once('close', () => {
      this.#inside.delete(socket);
      const left = (this.#perSharer.get(sharer) ?? 1) - 1;
      if (left > 0) this.#perSharer.set(sharer, left);
      else this.#perSharer.delete(sharer);
    });
    return undefined;
  }

  /** New material: new handshakes use it at once; those who must not stay, by themselves or by an issuer, leave at once. */
  #follow(material: TlsMaterial): void {
    // setSecureContext resets whatever it is not given again, the minimum version among it.
    this.#server.setSecureContext(this.#tlsOptions(material));
    const now = this.#options.clock.now();
    for (const [socket, { member, revocationKeys }] of this.#inside) {
      const problem = member && revocationProblem(material, revocationKeys, now);
      if (problem) this.#evict(socket, member.peer, problem);
    }
  }

  #patrolExpired(): void {
    const now = this.#options.clock.now();
    for (const [socket, { member }] of this.#inside) {
      if (member && member.peer.notAfter <= now) {
        const detail = 'the certificate it was opened with has expired';
        this.#evict(socket, member.peer, { reason: 'expired', detail });
      }
    }
  }

  #evict(socket: TLSSocket, { id: peer }: PeerIdentity, { reason, detail }: Eviction): void {
    this.#options.events.emit('connection-closed-by-policy', { peer, reason, detail });
    socket.destroy();
  }

  #refused(reason: HandshakeRefusal, detail: string, remoteAddress: string | undefined, peer?: string): void {
    this.#options.events.emit('handshake-refused', {
      reason,
      detail,
      remoteAddress: remoteAddress ?? 'unknown',
      ...(peer === undefined ? {} : { peer }),
    });
  }
}

type Eviction = Pick<EventMap['connection-closed-by-policy'], 'reason' | 'detail'>;

interface Refused {
  readonly reason: HandshakeRefusal;
  readonly detail: string;
  readonly peer?: string;
}

/** A refused TLS socket has forgotten who it was; the TCP socket below, which has no public name, has not. */
function addressOf(socket: TLSSocket): string | undefined {
  return socket.remoteAddress ?? (socket as unknown as { readonly _parent?: Socket })._parent?.remoteAddress;
}

function ignore(): void {}
