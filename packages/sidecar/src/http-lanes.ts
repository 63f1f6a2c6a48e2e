import type { TLSSocket } from 'node:tls';
import { type Authorizer, type EventSink, type PeerIdentity, Status, statusName } from '@sallyport/core/spi';
import {
  type AcceptedPeer,
  type LaneConnection,
  type MakeServerLane,
  NO_PROTOCOL,
  NuisanceBudget,
  type ServerLane,
} from '@sallyport/transport-mtls/spi';
import { type Admission, admitCall, admitRequest, withoutClaims } from './http/admission.js';
import { H1Server } from './http/h1-server.js';
import { h1Target } from './http/h1-target.js';
import { H2Server } from './http/h2-server.js';
import { h2Target } from './http/h2-target.js';
import type { Incoming } from './http/incoming.js';
import { Refusal, refuse } from './http/refusal.js';
import { Relay } from './http/relay.js';
import type { HttpServer } from './http/server.js';
import type { HttpTarget } from './http/target.js';
import type { ResolvedLimits } from './options.js';
import type { Program } from './program.js';

export interface HttpLanesOptions {
  readonly protocol: 'http' | 'grpc';
  readonly limits: ResolvedLimits;
}

export interface HttpLanesContext {
  readonly program: Program;
  readonly authorizer: Authorizer;
  readonly events: EventSink;
}

/** Whoever leaves a request so soon, ms, did not want its answer: a deadline, or a second try elsewhere, takes longer. */
const RAPID_MS = 100;
/**
 * What such a request costs (CVE-2023-44487): 660 at once and 33 a second are borne. nghttp2 bears 1,000, then says goodbye, and Node
 * leaves the connection as it is.
 */
const RAPID_COST = 1.5;
/** How long a connection to the program is kept for the next request of the same caller, ms: less than programs keep it. */
const KEEP_MS = 1000;
/** Of a path in an event. */
const MAX_ASKED = 200;

/** A request on its way. */
interface Running {
  readonly relay: Relay;
  readonly identity: PeerIdentity;
  readonly asked: string;
}

/** What became of requests, since the start. */
export interface RequestCounts {
  /** An answer of the program was passed on as a whole. */
  answered: number;
  /** No rule allowed them. */
  denied: number;
  /** Malformed, or over a limit. */
  refused: number;
  /** The program could not be reached, broke off or took too long. */
  failed: number;
  /** The caller went away, or was sent away. */
  abandoned: number;
}

/**
 * Passes requests on to the program, after one question for each: may this caller? HTTP by any version (ALPN `h2`, `http/1.1` and
 * none) to a program that speaks HTTP/1.1; gRPC (`h2`) to one that speaks HTTP/2 in the clear.
 */
export class HttpLanes {
  readonly counts: RequestCounts = { answered: 0, denied: 0, refused: 0, failed: 0, abandoned: 0 };
  readonly #options: HttpLanesOptions;
  readonly #context: HttpLanesContext;
  readonly #lanes: readonly ServerLane[];
  readonly #running = new Set<Running>();
  /** How many of them are of each identity. */
  readonly #perPeer = new Map<string, number>();

  constructor(options: HttpLanesOptions, context: HttpLanesContext) {
    this.#options = options;
    this.#context = context;
    const { limits } = options;
    const h2 = new H2Server(limits);
    const h1 = options.protocol === 'http' ? new H1Server(limits) : undefined;
    this.#lanes = [
      this.#lane('h2', h2),
      // Whoever offers no protocol knows of no other.
      ...(h1 ? [this.#lane('http/1.1', h1), this.#lane(NO_PROTOCOL, h1)] : []),
    ];
  }

  get makes(): readonly MakeServerLane[] {
    return this.#lanes.map((lane) => () => lane);
  }

  /** Under way. */
  get requests(): number {
    return this.#running.size;
  }

  /** The rules have changed: what is under way for whoever may not any more is ended. */
  judgeAnew(): void {
    for (const { relay, identity, asked } of [...this.#running]) {
      if (!this.#mayAsk(identity, asked)) relay.cut(denied());
    }
  }

  #lane(protocol: string, server: HttpServer): ServerLane {
    return {
      protocol,
      accept: (socket, peer) => this.#accept(socket, peer, server),
      close: () => server.close(),
    };
  }

  #accept(socket: TLSSocket, peer: AcceptedPeer, server: HttpServer): LaneConnection {
    const target = this.#newTarget();
    const patience = new NuisanceBudget();
    const { guard, identity } = peer;
    const connection = server.accept(socket, {
      request: (incoming) => {
        const rapidUntil = performance.now() + RAPID_MS;
        incoming.onClose((complete) => {
          if (complete) patience.earn(1);
          else if (performance.now() < rapidUntil && !patience.spend(RAPID_COST)) guard.report();
        });
        this.#serve(incoming, peer, target);
      },
      refused: (refusal) => {
        guard.call(0);
        this.#tellRefusal(identity, 'a request', refusal);
      },
    });
    return {
      drain: (graceMs) => connection.drain(graceMs),
      release: () => target.close(),
    };
  }

  /** Of one caller: connections to the program are never shared, so that nothing of one can end up with another. */
  #newTarget(): HttpTarget {
    const { limits, protocol } = this.#options;
    const connect = (signal: AbortSignal) => this.#context.program.connect(signal);
    const targetLimits = { ...limits, keepMs: KEEP_MS };
    return protocol === 'http' ? h1Target(connect, targetLimits) : h2Target(connect, targetLimits);
  }

  #serve(incoming: Incoming, { identity, guard }: AcceptedPeer, target: HttpTarget): void {
    guard.call(sizeOf(incoming));
    let admission: Admission;
    try {
      admission = this.#admit(incoming, identity);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      guard.sent(error.message.length);
      refuse(incoming, error);
      return;
    }
    const { limits, protocol } = this.#options;
    // Half of a call may rest for as long as it likes, as long as the other half does not.
    const bodyTimeoutMs = protocol === 'grpc' ? limits.requestIdleTimeoutMs : limits.bodyTimeoutMs;
    const relay = new Relay(incoming, admission.head, target, {
      limits: { ...limits, bodyTimeoutMs },
      onReceived: (bytes) => guard.message(bytes),
      onSent: (bytes) => guard.sent(bytes),
      passTrailers: withoutClaims,
    });
    const running = { relay, identity, asked: admission.asked };
    this.#begin(running);
    void relay.done.then(({ failure }) => {
      this.#end(running);
      if (failure === undefined) this.counts.answered++;
      else if (failure === 'gone' || failure === 'cut') this.counts.abandoned++;
      else this.counts.failed++;
    });
  }

  #begin(running: Running): void {
    const { id } = running.identity;
    this.#running.add(running);
    this.#perPeer.set(id, (this.#perPeer.get(id) ?? 0) + 1);
  }

  #end(running: Running): void {
    const { id } = running.identity;
    this.#running.delete(running);
    const left = (this.#perPeer.get(id) ?? 1) - 1;
    if (left > 0) this.#perPeer.set(id, left);
    else this.#perPeer.delete(id);
  }

  #admit(incoming: Incoming, identity: PeerIdentity): Admission {
    const admit = this.#options.protocol === 'grpc' ? admitCall : admitRequest;
    let admission: Admission;
    try {
      admission = admit(incoming, identity.id);
      const { maxRequests, maxRequestsPerPeer } = this.#options.limits;
      if (this.#running.size >= maxRequests) throw tooManyRequests(503);
      if ((this.#perPeer.get(identity.id) ?? 0) >= maxRequestsPerPeer) throw tooManyRequests(429);
    } catch (error) {
      if (error instanceof Refusal) this.#tellRefusal(identity, incoming.method, error);
      throw error;
    }
    if (!this.#mayAsk(identity, admission.asked)) {
      this.counts.denied++;
      throw denied();
    }
    return admission;
  }

  #mayAsk(identity: PeerIdentity, asked: string): boolean {
    const { authorizer, events } = this.#context;
    const { allowed, rule } = authorizer.decide(identity, asked);
    if (!allowed) events.emit('call-denied', { peer: identity.id, method: nameOf(asked), rule });
    return allowed;
  }

  #tellRefusal({ id }: PeerIdentity, method: string, { grpcStatus, code, message }: Refusal): void {
    this.counts.refused++;
    this.#context.events.emit('call-rejected', {
      peer: id,
      method,
      status: statusName(grpcStatus),
      detail: `${code}: ${message}`,
    });
  }
}

/** As events call methods everywhere: without the slash before the service. */
function nameOf(asked: string): string {
  return (asked.startsWith('/') ? asked.slice(1) : asked).slice(0, MAX_ASKED);
}

function sizeOf({ headers, target }: Incoming): number {
  let bytes = target.length;
  for (const name in headers) bytes += name.length + (headers[name] as string).length;
  return bytes;
}

function denied(): Refusal {
  return new Refusal({ status: 403, code: 'denied', title: 'No rule allows this caller what it asks for' });
}

/** 503: of all callers; 429: of this one (RFC 6585 section 4). */
function tooManyRequests(status: 503 | 429): Refusal {
  const grpcStatus = Status.RESOURCE_EXHAUSTED;
  return new Refusal({ status, code: 'too-many-requests', title: 'Too many requests are under way', grpcStatus });
}
