import { setMaxListeners } from 'node:events';
import type { Timer, TlsMaterial } from '@sallyport/core/spi';
import { every } from '@sallyport/core/spi';
import type { DialTarget } from '../dial.js';
import type { Server, Servers } from '../servers.js';
import { type Channel, type ChannelContext, HTTP_1, HTTP_2, openChannel } from './channel.js';

export interface PoolTarget extends DialTarget {
  readonly servers: Servers;
  /** `grpc` is HTTP/2 or nothing. */
  readonly protocol: 'http' | 'grpc';
}

export type PoolContext = Omit<ChannelContext, 'closing' | 'onOver'>;

/** How often it is looked for servers that are gone, ms. */
const PATROL_MS = 1000;

/** Verified connections to the servers of one upstream, kept for the next request. */
export class UpstreamPool {
  readonly #target: PoolTarget;
  readonly #context: ChannelContext;
  readonly #channels = new Set<Channel>();
  readonly #attempts = new Map<string, Promise<Channel>>();
  readonly #closing = new AbortController();
  readonly #unsubscribe: () => void;
  readonly #patrol: Timer;

  constructor(target: PoolTarget, context: PoolContext) {
    this.#target = target;
    this.#context = {
      ...context,
      closing: this.#closing.signal,
      onOver: (channel) => this.#channels.delete(channel),
    };
    // Each connection that is being opened listens: as many as requests come at once.
    setMaxListeners(0, this.#closing.signal);
    this.#unsubscribe = context.tls.onChange((material) => this.#judge(material));
    this.#patrol = every(context.clock, PATROL_MS, () => this.#retireStrangers());
  }

  /** Connections to servers. */
  get connections(): number {
    return [...this.#channels].reduce((sum, channel) => sum + channel.connections, 0);
  }

  /**
   * A channel to one of the servers, or to another one where it cannot be reached: nothing has been sent yet. `upgrade`: to a server
   * that speaks HTTP/1.1 on it, which alone knows of other protocols. Rejects with NoServerError, or CallError when the registry has not
   * answered in time.
   */
  channel(giveUp: AbortSignal, { upgrade }: { readonly upgrade: boolean }): Promise<Channel> {
    const { servers, protocol } = this.#target;
    const { connectTimeoutMs } = this.#context.limits;
    const protocols = upgrade ? [HTTP_1] : protocol === 'grpc' ? [HTTP_2] : [HTTP_2, HTTP_1];
    return servers.reach((server) => this.#channelTo(server, protocols), { connectTimeoutMs, giveUp });
  }

  /** The servers that failed lately are passed over. */
  failed({ server }: Channel): void {
    this.#target.servers.failed(server);
  }

  /** Takes no new request, lets those under way end for at most `graceMs`, and calls back when it is closed. */
  drain(graceMs: number, onClosed: () => void): void {
    for (const channel of [...this.#channels]) channel.retire();
    this.#context.clock.after(graceMs, () => {
      this.close();
      onClosed();
    });
  }

  close(): void {
    this.#closing.abort();
    this.#unsubscribe();
    this.#patrol.cancel();
    for (const channel of [...this.#channels]) channel.close();
  }

  /** Whoever comes while the server is dialled waits for the same connection. */
  async #channelTo(server: Server, protocols: readonly string[]): Promise<Channel> {
    for (;;) {
      for (const channel of this.#channels) {
        if (channel.server === server && channel.isOpen && protocols.includes(channel.protocol)) return channel;
      }
      const channel = await this.#attempt(server, protocols);
      if (channel.isOpen) return channel;
    }
  }

  #attempt(server: Server, protocols: readonly string[]): Promise<Channel> {
    const { instance } = server;
    const key = JSON.stringify([instance.id, instance.endpoints[0], protocols]);
    let attempt = this.#attempts.get(key);
    if (!attempt) {
      attempt = this.#open(server, protocols).finally(() => this.#attempts.delete(key));
      this.#attempts.set(key, attempt);
    }
    return attempt;
  }

  async #open(server: Server, protocols: readonly string[]): Promise<Channel> {
    const channel = await openChannel(server, this.#target, this.#context, protocols);
    this.#channels.add(channel);
    if (this.#closing.signal.aborted) channel.close();
    // It may have been revoked while the handshake ran, or we have a new identity.
    else channel.judge(this.#context.tls.current());
    return channel;
  }

  #judge(material: TlsMaterial): void {
    for (const channel of [...this.#channels]) channel.judge(material);
  }

  #retireStrangers(): void {
    for (const channel of [...this.#channels]) {
      if (!this.#target.servers.knows(channel.server)) channel.retire();
    }
  }
}
