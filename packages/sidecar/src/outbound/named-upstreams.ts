import type { Clock, LocalAddress } from '@sallyport/core/spi';
import type { DialContext } from '../dial.js';
import type { ListeningSockets } from '../handover/listening-sockets.js';
import { H1Server } from '../http/h1-server.js';
import { H2Server } from '../http/h2-server.js';
import { BalancedTarget } from './balanced-target.js';
import { LocalListener } from './local-listener.js';
import { LocalRequests, type LocalRequestsContext, type NamedUpstream } from './local-requests.js';
import { type PoolTarget, UpstreamPool } from './upstream-pool.js';
import { VirtualHosts } from './virtual-hosts.js';

export interface NamedUpstreamsContext extends DialContext {
  readonly listen: LocalAddress;
  readonly clock: Clock;
  readonly sockets: ListeningSockets;
}

interface InUse {
  readonly pool: UpstreamPool;
  readonly upstream: NamedUpstream;
}

/** The upstreams that the program reaches by their names, over HTTP, and the one place where it does. */
export class NamedUpstreams {
  readonly #context: NamedUpstreamsContext;
  readonly #requests: LocalRequests;
  readonly #listener: LocalListener;
  /** Those of upstreams that are no more, with requests under way. */
  readonly #leaving = new Set<UpstreamPool>();
  #inUse = new Map<PoolTarget, InUse>();

  constructor(targets: ReadonlyMap<string, PoolTarget>, context: NamedUpstreamsContext) {
    this.#context = context;
    const { listen, limits, events } = context;
    this.#requests = new LocalRequests({
      ...this.#declared(targets),
      refusesPages: !('path' in listen),
      limits,
      events,
    });
    this.#listener = new LocalListener(
      { listen, maxConnections: limits.maxUpstreamConnections, prefaceTimeoutMs: limits.headersTimeoutMs },
      { ...context, handler: this.#requests, h1: new H1Server(limits, { ignoresH2c: true }), h2: new H2Server(limits) },
    );
  }

  get address(): LocalAddress {
    return this.#listener.address;
  }

  /** Open connections to servers, by the name of the upstream. */
  get serverConnections(): ReadonlyMap<string, number> {
    return new Map([...this.#inUse].map(([{ name }, { pool }]) => [name, pool.connections]));
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

  /** Others from the next request on; a target that was in use keeps its connections. The rest have `graceMs` to end. */
  replace(targets: ReadonlyMap<string, PoolTarget>, graceMs: number): void {
    const before = [...this.#inUse.values()];
    this.#requests.replace(this.#declared(targets));
    const after = new Set([...this.#inUse.values()].map(({ pool }) => pool));
    for (const { pool } of before) {
      if (after.has(pool)) continue;
      this.#leaving.add(pool);
      pool.drain(graceMs, () => this.#leaving.delete(pool));
    }
  }

  async close(): Promise<void> {
    await this.#listener.close();
    for (const { pool } of this.#inUse.values()) pool.close();
    for (const pool of this.#leaving) pool.close();
  }

  #declared(targets: ReadonlyMap<string, PoolTarget>): Pick<LocalRequestsContext, 'hosts' | 'upstreams'> {
    const { limits, events } = this.#context;
    const inUse = new Map<PoolTarget, InUse>();
    const upstreams = new Map<string, NamedUpstream>();
    for (const [name, target] of targets) {
      const known = this.#inUse.get(target);
      const pool = known?.pool ?? new UpstreamPool(target, this.#context);
      const options = { maxRequests: limits.maxUpstreamRequests, events };
      const upstream = known?.upstream ?? {
        protocol: target.protocol,
        target: new BalancedTarget(name, pool, options),
      };
      inUse.set(target, { pool, upstream });
      upstreams.set(name, upstream);
    }
    this.#inUse = inUse;
    const port = () => ('port' in this.address ? this.address.port : undefined);
    return { hosts: new VirtualHosts(targets.keys(), port), upstreams };
  }
}
