import type { Socket } from 'node:net';
import { type Clock, type EventMap, revocationProblem, type Timer, type TlsMaterial } from '@sallyport/core/spi';
import { coarse, lifeOf, reset, spread } from '@sallyport/transport-mtls/spi';
import { type DialContext, type DialTarget, dial, type Verified } from '../dial.js';
import { h1Target } from '../http/h1-target.js';
import { h2Target } from '../http/h2-target.js';
import type { RequestHead } from '../http/message.js';
import type { HttpTarget, Sending } from '../http/target.js';
import type { Server } from '../servers.js';

export interface ChannelContext extends DialContext {
  readonly clock: Clock;
  /** Nobody dials any more. */
  readonly closing: AbortSignal;
  /** It takes no requests, and its last connection is closed. */
  readonly onOver: (channel: Channel) => void;
}

type Eviction = Pick<EventMap['connection-closed-by-policy'], 'reason' | 'detail'>;

/** Names of protocols in ALPN. */
export const HTTP_1 = 'http/1.1';
export const HTTP_2 = 'h2';
/** Servers of HTTP/1.1 end connections without a word that nothing travels on, Node after 5 s. */
const KEEP_HTTP_1_MS = 4000;

/** Opens the first connection, by which the server tells which version of HTTP it speaks (ALPN). */
export async function openChannel(
  server: Server,
  target: DialTarget,
  context: ChannelContext,
  protocols: readonly string[],
): Promise<Channel> {
  return new Channel(await dial(server, target, context, { protocols, giveUp: context.closing }), target, context);
}

/** Requests to one server, over connections of one version of HTTP that were opened with one generation of our identity. */
export class Channel {
  readonly server: Server;
  /** Of its connections, as ALPN calls it. */
  readonly protocol: string;
  readonly #target: DialTarget;
  readonly #context: ChannelContext;
  readonly #material: TlsMaterial;
  readonly #http: HttpTarget;
  readonly #connections = new Set<Connection>();
  #age: Timer;
  #first: Verified | undefined;
  #dialling = 0;
  #isRetired = false;

  constructor(first: Verified, target: DialTarget, context: ChannelContext) {
    this.server = first.server;
    this.#target = target;
    this.#context = context;
    this.#material = first.material;
    this.#first = first;
    this.protocol = first.socket.alpnProtocol === HTTP_2 ? HTTP_2 : HTTP_1;
    this.#age = context.clock.after(spread(context.limits.maxConnectionAgeMs), () => this.#retireOfAge());
    this.#keep(first);
    const connect = () => this.#connect();
    const { limits } = context;
    this.#http =
      this.protocol === HTTP_2
        ? h2Target(connect, { ...limits, keepMs: limits.idleTimeoutMs })
        : h1Target(connect, { ...limits, keepMs: KEEP_HTTP_1_MS });
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Whether it takes another request. */
  get isOpen(): boolean {
    return !this.#isRetired;
  }

  /** As `HttpTarget` does. `release` tells that the request is over. */
  async send(head: RequestHead, signal: AbortSignal): Promise<{ readonly sending: Sending; release(): void }> {
    const release = this.#begin();
    try {
      return { sending: await this.#http.send(head, signal), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Takes no more requests; those under way go on, until the connection is too old or a certificate ends. */
  retire(): void {
    if (this.#isRetired) return;
    this.#isRetired = true;
    this.#http.retire();
    // Nobody has taken it, and nobody will.
    this.#first?.socket.destroy();
    this.#endIfEmpty();
  }

  /** Ends what must not stay: the server was revoked, or the own identity may not be used. A new identity means new connections. */
  judge(material: TlsMaterial): void {
    for (const connection of [...this.#connections]) connection.judge(material);
    if (material !== this.#material) this.retire();
  }

  close(): void {
    this.retire();
    this.#http.close();
    for (const connection of [...this.#connections]) connection.cut();
  }

  #retireOfAge(): void {
    this.#age = this.#context.clock.after(this.#context.limits.maxConnectionAgeGraceMs, () => this.close());
    this.retire();
  }

  #begin(): () => void {
    this.server.pending++;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.server.pending--;
    };
  }

  async #connect(): Promise<Socket> {
    const first = this.#first;
    this.#first = undefined;
    if (first) return first.socket;
    const options = { protocols: [this.protocol], giveUp: this.#context.closing };
    this.#dialling++;
    try {
      const verified = await dial(this.server, this.#target, this.#context, options);
      this.#keep(verified);
      // The server may have been revoked while the handshake ran, or our identity taken back: nobody judged this connection then.
      this.judge(this.#context.tls.current());
      if (!this.#isRetired && !verified.socket.destroyed) return verified.socket;
      verified.socket.destroy();
      throw new Error('its connections were ended meanwhile');
    } finally {
      this.#dialling--;
      this.#retireIfEmpty();
    }
  }

  #keep(verified: Verified): void {
    const connection = new Connection(verified, this.#context, () => this.retire());
    this.#connections.add(connection);
    verified.socket.once('close', () => {
      this.#connections.delete(connection);
      this.#retireIfEmpty();
      this.#endIfEmpty();
    });
  }

  /** Where no connection is left, the server is chosen anew, and tells anew what it speaks. */
  #retireIfEmpty(): void {
    if (this.#connections.size === 0 && this.#dialling === 0) this.retire();
  }

  #endIfEmpty(): void {
    if (this.#connections.size > 0 || !this.#isRetired) return;
    this.#age.cancel();
    this.#context.onOver(this);
  }
}

/** A connection to a server, with the certificates that end it. */
class Connection {
  readonly #verified: Verified;
  readonly #context: ChannelContext;

  constructor(verified: Verified, context: ChannelContext, onOld: () => void) {
    this.#verified = verified;
    this.#context = context;
    const { clock, limits } = context;
    const { socket, peer, material } = verified;
    const now = clock.now();
    const { drainAt, endsAt } = lifeOf([material, peer], limits.maxConnectionAgeGraceMs, now);
    const old = clock.after(coarse(drainAt - now), onOld);
    const end = clock.after(coarse(endsAt - now), () =>
      this.#evict({ reason: 'expired', detail: 'a certificate it was opened with has expired' }),
    );
    socket.on('error', ignore);
    socket.setTimeout(limits.idleTimeoutMs, () => this.cut());
    socket.once('close', () => {
      old.cancel();
      end.cancel();
    });
  }

  judge(material: TlsMaterial): void {
    const { tls, clock } = this.#context;
    const problem = tls.suspended ?? revocationProblem(material, this.#verified.revocationKeys, clock.now());
    if (problem) this.#evict(problem);
  }

  cut(): void {
    reset(this.#verified.socket);
  }

  #evict({ reason, detail }: Eviction): void {
    this.#context.events.emit('connection-closed-by-policy', { peer: this.#verified.peer.id, reason, detail });
    this.cut();
  }
}

function ignore(): void {}
