import { randomUUID } from 'node:crypto';
import type { EventSink } from '@sallyport/core/spi';
import { CALLERS_GRPC, withoutClaims } from '../http/admission.js';
import type { Incoming } from '../http/incoming.js';
import type { RequestHead } from '../http/message.js';
import { isGrpc, Refusal, refuse } from '../http/refusal.js';
import { Relay, type RelayLimits } from '../http/relay.js';
import type { RequestHandler } from '../http/server.js';
import type { HttpTarget } from '../http/target.js';
import { refusePages } from './page-guard.js';
import type { VirtualHosts } from './virtual-hosts.js';

export interface NamedUpstream {
  readonly protocol: 'http' | 'grpc';
  readonly target: Pick<HttpTarget, 'send'>;
}

export interface LocalRequestsContext {
  readonly hosts: VirtualHosts;
  /** By the names that `hosts` knows. */
  readonly upstreams: ReadonlyMap<string, NamedUpstream>;
  /** Whether browsers may reach the listener: none reaches a unix socket. */
  readonly refusesPages: boolean;
  readonly limits: RelayLimits;
  readonly events: EventSink;
}

/** What the program asks for: each request goes to the upstream that it names, or is refused. */
export class LocalRequests implements RequestHandler {
  #context: LocalRequestsContext;

  constructor(context: LocalRequestsContext) {
    this.#context = context;
  }

  /** From the next request on. */
  replace(declared: Pick<LocalRequestsContext, 'hosts' | 'upstreams'>): void {
    this.#context = { ...this.#context, ...declared };
  }

  request(incoming: Incoming): void {
    const { hosts, refusesPages, limits } = this.#context;
    try {
      const { upstream, path } = hosts.find(incoming);
      if (refusesPages) refusePages(incoming.headers, incoming.authority);
      const { protocol, target } = this.#upstream(upstream);
      if (protocol === 'grpc' && !isGrpc(incoming)) throw grpcOnly();
      new Relay(incoming, headOf(incoming, upstream, path), target, { limits, passTrailers: withoutClaims });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.refused(error, incoming);
      refuse(incoming, error);
    }
  }

  refused({ status, code, message }: Refusal, { method = '', target = '' }: Partial<Incoming> = {}): void {
    const [path = ''] = target.split('?');
    this.#context.events.emit('request-refused', {
      request: randomUUID(),
      method,
      path,
      status,
      code,
      remoteAddress: 'local',
      detail: message,
    });
  }

  #upstream(name: string): NamedUpstream {
    const upstream = this.#context.upstreams.get(name);
    if (!upstream) throw new TypeError(`${name} is no upstream`);
    return upstream;
  }
}

/** As the server sees it. Whoever the program says it is, the server knows it by our certificate. */
function headOf(incoming: Incoming, authority: string, path: string): RequestHead {
  const { method, headers, hasBody, upgrade, expectsContinue } = incoming;
  if (upgrade !== undefined && upgrade !== 'websocket') throw upgradeRefused();
  return {
    method,
    path,
    authority,
    headers: isGrpc(incoming) ? { ...withoutClaims(headers, CALLERS_GRPC), te: 'trailers' } : withoutClaims(headers),
    hasBody,
    expectsContinue,
    ...(upgrade === undefined ? {} : { upgrade }),
  };
}

function grpcOnly(): Refusal {
  return new Refusal({ status: 415, code: 'grpc-only', title: 'The upstream takes calls of gRPC over HTTP/2 alone' });
}

function upgradeRefused(): Refusal {
  return new Refusal({ status: 400, code: 'upgrade-refused', title: 'Connections change to WebSocket alone' });
}
