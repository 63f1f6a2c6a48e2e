import { CallError } from '@sallyport/core';
import {
  Authorizer,
  type Clock,
  type Endpoint,
  type EventSink,
  type Listener,
  type TlsHandle,
  toRuleSource,
} from '@sallyport/core/spi';
import { listen, parseServerOptions } from '@sallyport/transport-mtls/spi';
import type { ListeningSockets } from './handover/listening-sockets.js';
import type { ResolvedInbound, ResolvedSidecarOptions } from './options.js';
import { Program } from './program.js';
import { TcpLane } from './tcp-lane.js';

/** What rules call a connection: `sallyport.sidecar.v1.Tunnel/<name of the inbound>`. */
const TUNNEL = 'sallyport.sidecar.v1.Tunnel';

export interface InboundContext {
  readonly tls: TlsHandle;
  readonly events: EventSink;
  readonly clock: Clock;
  readonly sockets: ListeningSockets;
  /** Called when the program has become well or unwell. */
  readonly onProgramChange: () => void;
}

/** The door through which others reach the program. */
export class Inbound {
  readonly #options: ResolvedSidecarOptions;
  readonly #inbound: ResolvedInbound;
  readonly #context: InboundContext;
  readonly #program: Program;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  #listener: Listener | undefined;

  constructor(options: ResolvedSidecarOptions, inbound: ResolvedInbound, context: InboundContext) {
    this.#options = options;
    this.#inbound = inbound;
    this.#context = context;
    const { connectTimeoutMs } = options.limits;
    this.#program = new Program({ ...inbound, connectTimeoutMs }, context.events, context.onProgramChange);
  }

  get endpoints(): readonly Endpoint[] {
    return this.#listener?.endpoints ?? [];
  }

  /** Connections of others. */
  get connections(): number {
    return this.#listener?.connections ?? 0;
  }

  /** Why the program cannot be reached, or is not well; undefined when it is. */
  get programProblem(): string | undefined {
    return this.#program.problem;
  }

  /** Looks after the program, then listens. Rejects with CallError when the address cannot be had; `close` releases the rest. */
  async open(): Promise<void> {
    const { limits, name } = this.#options;
    const { tls, sockets, events, clock } = this.#context;
    const rules = await toRuleSource(this.#options.authorize, 'sidecar.authorize').open({ events, clock });
    this.#opened.push(() => rules.close());
    const authorizer = new Authorizer(rules.current());
    this.#opened.push(() => this.#program.stop());
    await this.#program.start(clock);
    const lane = new TcpLane(
      { method: `${TUNNEL}/${this.#inbound.name}`, proxyProtocol: this.#inbound.proxyProtocol, limits },
      { events, clock, program: this.#program, authorizer },
    );
    rules.onChange((changed) => {
      authorizer.replace(changed);
      lane.judgeAnew();
    });
    const listener = await listen(
      { service: name, tls, methods: [], events, clock },
      doorOptions(this.#options),
      [lane.make],
      (server, address) => sockets.listen('door', server, address),
    );
    this.#opened.push(() => listener.close());
    this.#listener = listener;
  }

  /** Takes no new connection, and lets the open ones end by themselves for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    await this.#listener?.drain(graceMs);
  }

  async close(): Promise<void> {
    for (let close = this.#opened.pop(); close; close = this.#opened.pop()) await close();
  }
}

/** The door is that of every server of the SDK. What it bounds besides belongs to calls, which do not come here. */
function doorOptions({ listen: address, advertise, allowWildcardBind, limits }: ResolvedSidecarOptions) {
  const { maxConnections, maxConnectionsPerPeer, handshakeTimeoutMs, maxConnectionAgeMs, maxConnectionAgeGraceMs } =
    limits;
  const { value } = parseServerOptions({
    limits: { maxConnections, maxConnectionsPerPeer, handshakeTimeoutMs, maxConnectionAgeMs, maxConnectionAgeGraceMs },
  });
  if (!value || !address) throw new CallError('INTERNAL', 'the door has no address');
  return { ...value, address, advertise, allowWildcardBind };
}
