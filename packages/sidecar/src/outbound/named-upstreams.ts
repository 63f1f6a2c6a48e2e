import type { Clock } from '@sallyport/core/spi';
import type { DialContext } from '../dial.js';
import type { ListeningSockets } from '../handover/listening-sockets.js';
import { H1Server } from '../http/h1-server.js';
import { H2Server } from '../http/h2-server.js';
import type { LocalAddress } from '../local-address.js';
import { BalancedTarget } from './balanced-target.js';
import { LocalListener } from './local-listener.js';
import { LocalRequests, type NamedUpstream } from './local-requests.js';
import { type PoolTarget, UpstreamPool } from './upstream-pool.js';
import { VirtualHosts } from './virtual-hosts.js';

export interface NamedUpstreamsContext extends DialContext {
  readonly listen: LocalAddress;
  readonly clock: Clock;
  readonly sockets: ListeningSockets;
}

/** The upstreams that the program reaches by their names, over HTTP, and the one place where it does. */
export class NamedUpstreams {
  readonly names: readonly string[];
  readonly #pools: readonly UpstreamPool[];
  readonly #listener: LocalListener;

  constructor(targets: ReadonlyMap<string, PoolTarget>, context: NamedUpstreamsContext) {
    const { listen, limits, events } = context;
    const pools: UpstreamPool[] = [];
    const upstreams = new Map<string, NamedUpstream>();
    for (const [name, target] of targets) {
      const pool = new UpstreamPool(target, context);
      pools.push(pool);
      const balanced = new BalancedTarget(name, pool, { maxRequests: limits.maxUpstreamRequests, events });
      upstreams.set(name, { protocol: target.protocol, target: balanced });
    }
    this.names = [...targets.keys()];
    this.#pools = pools;
    const handler = new LocalRequests({
      hosts: new VirtualHosts(this.names, () => ('port' in this.address ? this.address.port : undefined)),
      upstreams,
      refusesPages: !('path' in listen),
      limits,
      events,
    });
    this.#listener = new LocalListener(
      { listen, maxConnections: limits.maxUpstreamConnections, prefaceTimeoutMs: limits.headersTimeoutMs },
      { ...context, handler, h1: new H1Server(limits), h2: new H2Server(limits) },
    );
  }

  get address(): LocalAddress {
    return this.#listener.address;
  }

  /** Of the program. */
  get connections(): number {
    return this.#listener.connections;
  }

  /** Rejects with CallError UNAVAILABLE when the address cannot be had. */
  bind(): Promise<void> {
    return this.#listener.bind();
  }

  /** Takes no new request, and lets those under way end for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    await this.#listener.drain(graceMs);
  }

  async close(): Promise<void> {
    await this.#listener.close();
    for (const pool of this.#pools) pool.close();
  }
}
