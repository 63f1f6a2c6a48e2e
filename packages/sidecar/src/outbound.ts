import { UsageError } from '@sallyport/core';
import {
  type Clock,
  type EventSink,
  followService,
  type IdentityTemplate,
  isLoopback,
  type RegistrySession,
  type TlsHandle,
} from '@sallyport/core/spi';
import type { DialTarget } from './dial.js';
import type { ListeningSockets } from './handover/listening-sockets.js';
import { type LocalAddress, textOf } from './local-address.js';
import { expectedIdentity, type ResolvedSidecarOptions, type ResolvedUpstream } from './options.js';
import { NamedUpstreams } from './outbound/named-upstreams.js';
import type { PoolTarget } from './outbound/upstream-pool.js';
import { fixedServers, type ServerSource, Servers } from './servers.js';
import { UpstreamPort, type UpstreamTarget } from './upstream.js';

export interface OutboundContext {
  readonly tls: TlsHandle;
  readonly template: IdentityTemplate;
  /** Where upstreams are found that name a service; stays the caller's. */
  readonly session: RegistrySession | undefined;
  readonly events: EventSink;
  readonly clock: Clock;
  readonly sockets: ListeningSockets;
}

/** What the program reaches through the sidecar. */
export class Outbound {
  readonly #options: ResolvedSidecarOptions;
  readonly #context: OutboundContext;
  readonly #ports = new Map<string, UpstreamPort>();
  #named: NamedUpstreams | undefined;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];

  constructor(options: ResolvedSidecarOptions, context: OutboundContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Where the program reaches each upstream: `127.0.0.1:7001` or `unix:/path`. Those that it reaches by name share one. */
  get addresses(): Readonly<Record<string, string>> {
    const addresses = new Map([...this.#ports].map(([name, { address }]) => [name, address]));
    for (const name of this.#named?.names ?? []) if (this.#named) addresses.set(name, this.#named.address);
    return Object.fromEntries([...addresses].map(([name, address]) => [name, textOf(address)]));
  }

  /** Connections of the program. */
  get connections(): number {
    return [...this.#ports.values()].reduce((sum, port) => sum + port.connections, this.#named?.connections ?? 0);
  }

  /** Rejects with CallError when an address cannot be had; `close` releases the others. */
  async open(): Promise<void> {
    const { outbound, upstreams } = this.#options;
    const named = new Map<string, PoolTarget>();
    for (const [name, upstream] of Object.entries(upstreams)) {
      const target = this.#targetOf(name, upstream);
      const servers = new Servers(this.#sourceOf(name, upstream, target), this.#context.clock);
      if (upstream.protocol !== 'tcp') named.set(name, { ...target, servers, protocol: upstream.protocol });
      else if (upstream.listen) await this.#openPort({ ...target, servers, listen: upstream.listen });
    }
    if (outbound) await this.#openNamed(named, outbound.listen);
  }

  /** Takes no new connection, and lets the open ones end by themselves for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    await Promise.all([...this.#ports.values(), this.#named].map((port) => port?.drain(graceMs)));
  }

  async close(): Promise<void> {
    this.#ports.clear();
    this.#named = undefined;
    for (let close = this.#opened.pop(); close; close = this.#opened.pop()) await close();
  }

  async #openPort(target: UpstreamTarget): Promise<void> {
    const port = new UpstreamPort(target, { ...this.#context, limits: this.#options.limits });
    this.#opened.push(() => port.close());
    await port.bind();
    this.#ports.set(target.name, port);
  }

  async #openNamed(upstreams: ReadonlyMap<string, PoolTarget>, listen: LocalAddress): Promise<void> {
    const named = new NamedUpstreams(upstreams, { ...this.#context, limits: this.#options.limits, listen });
    this.#opened.push(() => named.close());
    await named.bind();
    this.#named = named;
  }

  #targetOf(name: string, upstream: ResolvedUpstream): DialTarget {
    const { tls, template } = this.#context;
    return {
      name,
      expect: expectedIdentity(upstream, tls.current().identity.trustDomain, template),
      // An address of the configuration was judged when it was read; a name must not turn out to be this machine.
      endpoints: { allowLoopback: upstream.addresses?.some(({ host }) => isLoopback(host)) ?? this.#isLocal },
    };
  }

  /** Whether services of this machine are found under loopback addresses. */
  get #isLocal(): boolean {
    const { registry, listen } = this.#options;
    return registry?.reach === 'machine' || (listen !== undefined && isLoopback(listen.host));
  }

  #sourceOf(name: string, { addresses, service }: ResolvedUpstream, { expect, endpoints }: DialTarget): ServerSource {
    if (addresses !== undefined) return fixedServers(name, addresses, expect);
    const { session, events, clock } = this.#context;
    const { registry } = this.#options;
    // The options were refused otherwise.
    if (!session || !registry || service === undefined) throw new UsageError('an upstream without servers');
    const view = followService({ service, session, registry: registry.kind, events, clock, endpoints });
    this.#opened.push(() => view.close());
    return view;
  }
}
