import type { Agent } from 'node:https';
import { CallError, type IdentityMatcher, oneOf, type Registry, selector } from '@sallyport/core';
import {
  type Clock,
  defaultIdentityTemplate,
  type Endpoint,
  type EventSink,
  followService,
  httpsAgent,
  type InstanceRecord,
  parseIdentityTemplate,
  type RegistrySession,
  type RegistryView,
  readyOnly,
  type TlsHandle,
} from '@sallyport/core/spi';
import type { Route } from '../routes/route.js';
import { parseUpstream } from './upstream-address.js';

export type HttpRoute = Extract<Route, { kind: 'http' }>;

/** One place that may answer. Give it back when the request is over. */
export interface Place {
  readonly endpoint: Endpoint;
  readonly agent: Agent;
  release(): void;
}

/** Where the requests of one route go. */
export interface Upstream {
  /** A place that is not among `tried`. Rejects with CallError UNAVAILABLE or DEADLINE_EXCEEDED. */
  pick(tried: ReadonlySet<string>, deadlineAt: number): Promise<Place>;
}

export interface UpstreamsContext {
  readonly name: string;
  /** Who the gateway is for the services; stays the caller's. */
  readonly tls: TlsHandle;
  readonly registry: Registry;
  readonly events: EventSink;
  readonly clock: Clock;
}

/** Connections to one place at once. */
const MAX_SOCKETS = 256;

/** Connections and views of the HTTP services behind the gateway. */
export class Upstreams {
  readonly #context: UpstreamsContext;
  readonly #tls: TlsHandle;
  readonly #session: RegistrySession;
  /** By who is expected, not by its description: two that are called the same may expect others. */
  readonly #agents = new Map<IdentityMatcher, Agent>();
  readonly #ids = new Map<string, IdentityMatcher>();
  readonly #views = new Map<string, RegistryView>();

  static async open(context: UpstreamsContext): Promise<Upstreams> {
    const { name: service, events, clock, tls, registry } = context;
    return new Upstreams(context, await registry.open({ service, events, clock, tls }));
  }

  private constructor(context: UpstreamsContext, session: RegistrySession) {
    this.#context = context;
    this.#tls = context.tls;
    this.#session = session;
  }

  of({ options }: HttpRoute): Upstream {
    const address = parseUpstream(options.upstream);
    if (address) {
      const place = { endpoint: address, agent: this.#agentFor(options.expect as IdentityMatcher), release() {} };
      return {
        async pick(tried) {
          if (tried.size > 0) throw new CallError('UNAVAILABLE', 'the only address was tried');
          return place;
        },
      };
    }
    return new ServiceUpstream(
      this.#viewOf(options.upstream),
      this.#agentFor(options.expect ?? this.#idOf(options.upstream)),
    );
  }

  async close(): Promise<void> {
    for (const view of this.#views.values()) view.close();
    for (const agent of this.#agents.values()) agent.destroy();
    await this.#session.close();
  }

  #idOf(service: string): IdentityMatcher {
    const known = this.#ids.get(service);
    if (known) return known;
    const { trustDomain } = this.#tls.current().identity;
    const id = oneOf([parseIdentityTemplate(defaultIdentityTemplate).idFor(trustDomain, service)]);
    this.#ids.set(service, id);
    return id;
  }

  #agentFor(expect: IdentityMatcher): Agent {
    const known = this.#agents.get(expect);
    if (known) return known;
    const agent = httpsAgent(this.#tls, { expect, maxSockets: MAX_SOCKETS });
    this.#agents.set(expect, agent);
    return agent;
  }

  #viewOf(service: string): RegistryView {
    const known = this.#views.get(service);
    if (known) return known;
    const { registry, events, clock } = this.#context;
    const view = followService({
      service,
      session: this.#session,
      registry: registry.kind,
      events,
      clock,
      endpoints: { allowLoopback: registry.reach === 'machine' },
    });
    this.#views.set(service, view);
    return view;
  }
}

interface Candidate {
  instance: InstanceRecord;
  pending: number;
}

class ServiceUpstream implements Upstream {
  readonly #view: RegistryView;
  readonly #agent: Agent;
  readonly #selector = selector.leastPending();
  #candidates = new Map<string, Candidate>();
  #seenVersion = -1;

  constructor(view: RegistryView, agent: Agent) {
    this.#view = view;
    this.#agent = agent;
  }

  async pick(tried: ReadonlySet<string>, deadlineAt: number): Promise<Place> {
    await this.#view.ready(deadlineAt);
    this.#refresh();
    const left = [...this.#candidates.values()].filter(({ instance }) => !tried.has(placeName(endpointOf(instance))));
    const candidate = this.#selector.pick(left);
    if (!candidate) throw new CallError('UNAVAILABLE', `no instance of ${this.#view.service} is ready`);
    candidate.pending++;
    let isReleased = false;
    return {
      endpoint: endpointOf(candidate.instance),
      agent: this.#agent,
      release: () => {
        if (!isReleased) candidate.pending--;
        isReleased = true;
      },
    };
  }

  #refresh(): void {
    if (this.#view.version === this.#seenVersion) return;
    this.#seenVersion = this.#view.version;
    const before = this.#candidates;
    this.#candidates = new Map();
    for (const instance of readyOnly(this.#view.instances())) {
      const known = before.get(instance.id);
      if (known) known.instance = instance;
      this.#candidates.set(instance.id, known ?? { instance, pending: 0 });
    }
  }
}

export function placeName({ host, port }: Endpoint): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** A record always has an endpoint: the registry view drops those that have none. */
function endpointOf(instance: InstanceRecord): Endpoint {
  return instance.endpoints[0] as Endpoint;
}
