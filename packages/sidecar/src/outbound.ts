import { isDeepStrictEqual } from 'node:util';
import { UsageError } from '@sallyport/core';
import {
  type Clock,
  type EventSink,
  followService,
  type IdentityTemplate,
  isLoopback,
  localAddressText,
  type RegistrySession,
  type TlsHandle,
} from '@sallyport/core/spi';
import type { ShownUpstream } from './admin/pages.js';
import type { DialTarget } from './dial.js';
import type { ListeningSockets } from './handover/listening-sockets.js';
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

/** An upstream as it is in use. */
interface InUse {
  readonly upstream: ResolvedUpstream;
  readonly target: Omit<UpstreamTarget, 'listen'>;
  /** Of one that is reached by TCP. */
  readonly port: UpstreamPort | undefined;
  /** Of one that is reached by name. */
  readonly named: PoolTarget | undefined;
  /** Asks no registry any more. */
  readonly forget: () => void;
}

/** What the program reaches through the sidecar. */
export class Outbound {
  readonly #options: ResolvedSidecarOptions;
  readonly #context: OutboundContext;
  /** Ports of upstreams that are no more, with connections that have not come to their end. */
  readonly #leaving = new Set<UpstreamPort>();
  #inUse: ReadonlyMap<string, InUse> = new Map();
  #named: NamedUpstreams | undefined;

  constructor(options: ResolvedSidecarOptions, context: OutboundContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Where the program reaches each upstream: `127.0.0.1:7001` or `unix:/path`. Those that it reaches by name share one. */
  get addresses(): Readonly<Record<string, string>> {
    const addresses = [...this.#inUse].flatMap(([name, { port }]) => {
      const address = port?.address ?? this.#named?.address;
      return address ? [[name, localAddressText(address)] as const] : [];
    });
    return Object.fromEntries(addresses);
  }

  /** Each upstream with its open connections: of the program to its port, or to its servers where it is reached by name. */
  get upstreams(): readonly ShownUpstream[] {
    const named = this.#named?.serverConnections;
    return Object.entries(this.addresses).map(([name, address]) => {
      const port = this.#inUse.get(name)?.port;
      return { name, address, connections: port?.connections ?? named?.get(name) ?? 0 };
    });
  }

  /** Connections of the program. */
  get connections(): number {
    return this.#ports.reduce((sum, port) => sum + port.connections, this.#named?.connections ?? 0);
  }

  /** Rejects with CallError when an address cannot be had; `close` releases the others. */
  async open(): Promise<void> {
    const { outbound, upstreams, limits } = this.#options;
    this.#inUse = await this.#prepare(upstreams);
    if (!outbound) return;
    const named = new NamedUpstreams(namedOf(this.#inUse), { ...this.#context, limits, listen: outbound.listen });
    this.#named = named;
    await named.bind();
  }

  /**
   * Other upstreams from now on. Open connections stay: those to what is no upstream any more for at most `graceMs`. Rejects with
   * CallError when an address cannot be had; then everything stays as it is.
   */
  async replace(upstreams: ResolvedSidecarOptions['upstreams'], graceMs: number): Promise<void> {
    const before = this.#inUse;
    const after = await this.#prepare(upstreams);
    this.#inUse = after;
    this.#named?.replace(namedOf(after), graceMs);
    const ports = new Set([...after.values()].map(({ port }) => port));
    for (const { target, port } of after.values()) port?.retarget(target);
    for (const [name, old] of before) {
      if (after.get(name) === old) continue;
      old.forget();
      if (old.port && !ports.has(old.port)) void this.#leave(old.port, graceMs);
    }
  }

  /** Takes no new connection, and lets the open ones end by themselves for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    await Promise.all([...this.#ports, this.#named].map((port) => port?.drain(graceMs)));
  }

  async close(): Promise<void> {
    await this.#named?.close();
    await Promise.all(this.#ports.map((port) => port.close()));
    for (const { forget } of this.#inUse.values()) forget();
    this.#inUse = new Map();
    this.#named = undefined;
  }

  get #ports(): UpstreamPort[] {
    return [...[...this.#inUse.values()].flatMap(({ port }) => port ?? []), ...this.#leaving];
  }

  async #leave(port: UpstreamPort, graceMs: number): Promise<void> {
    this.#leaving.add(port);
    await port.drain(graceMs);
    this.#leaving.delete(port);
  }

  /** What is as it was stays in use. All or nothing: when it rejects, nothing is open that was not before. */
  async #prepare(upstreams: ResolvedSidecarOptions['upstreams']): Promise<ReadonlyMap<string, InUse>> {
    const prepared = new Map<string, InUse>();
    const made: { close(): unknown }[] = [];
    try {
      for (const [name, upstream] of Object.entries(upstreams)) {
        const before = this.#inUse.get(name);
        if (before && isDeepStrictEqual(before.upstream, upstream)) {
          prepared.set(name, before);
          continue;
        }
        const target = this.#targetOf(name, upstream);
        const source = this.#sourceOf(name, upstream, target);
        made.push({ close: source.forget });
        const servers = new Servers(source.servers, this.#context.clock);
        const reached = { ...target, servers };
        const port = await this.#portOf(upstream, reached, before);
        if (port && port !== before?.port) made.push(port);
        const named = upstream.protocol === 'tcp' ? undefined : { ...reached, protocol: upstream.protocol };
        prepared.set(name, { upstream, target: reached, port, named, forget: source.forget });
      }
      return prepared;
    } catch (error) {
      for (const one of made) await one.close();
      throw error;
    }
  }

  /** The one that listens there already serves on, so that nobody is turned away. */
  async #portOf(
    { listen }: ResolvedUpstream,
    target: Omit<UpstreamTarget, 'listen'>,
    before: InUse | undefined,
  ): Promise<UpstreamPort | undefined> {
    if (!listen) return undefined;
    if (before?.port && isDeepStrictEqual(before.upstream.listen, listen)) return before.port;
    const port = new UpstreamPort({ ...target, listen }, { ...this.#context, limits: this.#options.limits });
    await port.bind();
    return port;
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

  #sourceOf(
    name: string,
    { addresses, service }: ResolvedUpstream,
    { expect, endpoints }: DialTarget,
  ): { readonly servers: ServerSource; readonly forget: () => void } {
    if (addresses !== undefined) return { servers: fixedServers(name, addresses, expect), forget: () => {} };
    const { session, events, clock } = this.#context;
    const { registry } = this.#options;
    // The options were refused otherwise.
    if (!session || !registry || service === undefined) throw new UsageError('an upstream without servers');
    const view = followService({ service, session, registry: registry.kind, events, clock, endpoints });
    return { servers: view, forget: () => view.close() };
  }
}

function namedOf(inUse: ReadonlyMap<string, InUse>): ReadonlyMap<string, PoolTarget> {
  return new Map([...inUse].flatMap(([name, { named }]) => (named ? [[name, named]] : [])));
}
