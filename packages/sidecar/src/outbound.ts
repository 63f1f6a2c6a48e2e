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
import { textOf } from './local-address.js';
import { expectedIdentity, type ResolvedSidecarOptions, type ResolvedUpstream } from './options.js';
import { fixedServers, type ServerSource, Servers } from './servers.js';
import { UpstreamPort } from './upstream.js';

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
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];

  constructor(options: ResolvedSidecarOptions, context: OutboundContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Where the program reaches each upstream: `127.0.0.1:7001` or `unix:/path`. */
  get addresses(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.#ports].map(([name, port]) => [name, textOf(port.address)]));
  }

  /** Connections of the program. */
  get connections(): number {
    return [...this.#ports.values()].reduce((sum, port) => sum + port.connections, 0);
  }

  /** Rejects with CallError when an address cannot be had; `close` releases the others. */
  async open(): Promise<void> {
    const { limits, upstreams } = this.#options;
    for (const [name, upstream] of Object.entries(upstreams)) {
      const target = this.#targetOf(name, upstream);
      const servers = new Servers(this.#sourceOf(name, upstream, target), this.#context.clock);
      if (upstream.listen === undefined) continue;
      const port = new UpstreamPort({ ...target, servers, listen: upstream.listen }, { ...this.#context, limits });
      this.#opened.push(() => port.close());
      await port.bind();
      this.#ports.set(name, port);
    }
  }

  /** Takes no new connection, and lets the open ones end by themselves for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    await Promise.all([...this.#ports.values()].map((port) => port.drain(graceMs)));
  }

  async close(): Promise<void> {
    this.#ports.clear();
    for (let close = this.#opened.pop(); close; close = this.#opened.pop()) await close();
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
