import { CallError } from '@sallyport/core';
import {
  Authorizer,
  type Clock,
  type Endpoint,
  type EventSink,
  type Listener,
  localAddressText,
  type MethodPattern,
  Networks,
  type ParsedRule,
  type RuleHandle,
  type TlsHandle,
  toRuleSource,
} from '@sallyport/core/spi';
import { listen, type MakeServerLane, parseServerOptions } from '@sallyport/transport-mtls/spi';
import { Peers } from './admin/peers.js';
import type { ListeningSockets } from './handover/listening-sockets.js';
import { HttpLanes, type RequestCounts } from './http-lanes.js';
import type { ResolvedInbound, ResolvedSidecarOptions, SidecarOptions } from './options.js';
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

/** What the door hands connections to. */
interface Lanes {
  readonly makes: readonly MakeServerLane[];
  /** The rules have changed: whoever may not any more must leave. */
  judgeAnew(): void;
}

/** The door through which others reach the program. */
export class Inbound {
  readonly #options: ResolvedSidecarOptions;
  readonly #inbound: ResolvedInbound;
  readonly #context: InboundContext;
  readonly #program: Program;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  readonly #authorizer = new Authorizer([]);
  #rules: RuleHandle | undefined;
  readonly #peers: Peers;
  #judgeAnew = (): void => {};
  #listener: Listener | undefined;
  #lanes: HttpLanes | undefined;

  constructor(options: ResolvedSidecarOptions, inbound: ResolvedInbound, context: InboundContext) {
    this.#options = options;
    this.#inbound = inbound;
    this.#context = context;
    this.#peers = new Peers(context.clock);
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

  /** Who is connected. */
  get peers(): Pick<Peers, 'list' | 'accepted'> {
    return this.#peers;
  }

  /** Those in force. */
  get rules(): readonly ParsedRule[] {
    return this.#rules?.current() ?? [];
  }

  /** Requests under way, and what became of the others; undefined where bytes are passed on. */
  get requests(): (RequestCounts & { readonly running: number }) | undefined {
    return this.#lanes && { ...this.#lanes.counts, running: this.#lanes.requests };
  }

  /** Where the program is, and why it cannot be reached or is not well; undefined when it is. */
  get program(): { readonly target: string; readonly problem: string | undefined } {
    return { target: localAddressText(this.#inbound.target), problem: this.#program.problem };
  }

  /** Looks after the program, then listens. Rejects with CallError when the address cannot be had; `close` releases the rest. */
  async open(): Promise<void> {
    const { name } = this.#options;
    const { tls, sockets, events, clock } = this.#context;
    this.#opened.push(() => this.#rules?.close());
    this.follow(await this.openRules(this.#options.authorize));
    this.#opened.push(() => this.#program.stop());
    await this.#program.start(clock);
    const lanes = this.#newLanes();
    this.#judgeAnew = () => lanes.judgeAnew();
    const listener = await listen(
      { service: name, tls, methods: [], events, clock },
      doorOptions(this.#options),
      lanes.makes.map((make) => this.#peers.counted(make)),
      (server, address) => sockets.listen('door', server, address),
    );
    this.#opened.push(() => listener.close());
    this.#listener = listener;
  }

  /** Rules that `follow` puts in the place of those in force. Rejects with InsecureConfigurationError. */
  async openRules(authorize: SidecarOptions['authorize']): Promise<RuleHandle> {
    const { events, clock } = this.#context;
    return await toRuleSource(authorize, 'sidecar.authorize').open({ events, clock });
  }

  /** From now on these are in force, and whatever becomes of them: whoever may not any more must leave. */
  follow(rules: RuleHandle): void {
    this.#rules?.close();
    this.#rules = rules;
    const apply = () => {
      this.#authorizer.replace(rules.current());
      this.#judgeAnew();
      this.#tellOfUseless(rules.current());
    };
    apply();
    rules.onChange(apply);
  }

  #newLanes(): Lanes {
    const { limits } = this.#options;
    const { protocol, proxyProtocol } = this.#inbound;
    const { events, clock } = this.#context;
    const context = { events, clock, program: this.#program, authorizer: this.#authorizer };
    if (protocol === 'tcp') {
      const lane = new TcpLane({ method: this.#tunnel, proxyProtocol, limits }, context);
      return { makes: [lane.make], judgeAnew: () => lane.judgeAnew() };
    }
    this.#lanes = new HttpLanes({ protocol, limits }, context);
    return this.#lanes;
  }

  /** A rule in the words of another protocol can never apply, which is a mistake; where it denies, a bad one. */
  #tellOfUseless(rules: readonly ParsedRule[]): void {
    for (const { name, methods } of rules) {
      for (const method of methods) {
        if (!this.#mayApply(method))
          this.#context.events.emit('rule-without-method', { rule: name, method: method.text });
      }
    }
  }

  #mayApply(method: MethodPattern): boolean {
    const isRequest = method.text.includes(' ');
    if (this.#inbound.protocol === 'tcp') return !isRequest && method.matches(`/${this.#tunnel}`);
    return isRequest === (this.#inbound.protocol === 'http');
  }

  get #tunnel(): string {
    return `${TUNNEL}/${this.#inbound.name}`;
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
function doorOptions({ listen: address, advertise, allowWildcardBind, balancers, limits }: ResolvedSidecarOptions) {
  const { maxConnections, maxConnectionsPerPeer, handshakeTimeoutMs, maxConnectionAgeMs, maxConnectionAgeGraceMs } =
    limits;
  const { value } = parseServerOptions({
    limits: { maxConnections, maxConnectionsPerPeer, handshakeTimeoutMs, maxConnectionAgeMs, maxConnectionAgeGraceMs },
  });
  if (!value || !address) throw new CallError('INTERNAL', 'the door has no address');
  return { ...value, address, advertise, allowWildcardBind, balancers: balancers && new Networks(balancers.from) };
}
