import {
  CallError,
  consoleLogger,
  type EventListener,
  type EventType,
  type Readiness,
  type ServiceState,
  UsageError,
} from '@sallyport/core';
import {
  Authorizer,
  type Clock,
  checkEnvironment,
  distinct,
  type Endpoint,
  EventBus,
  every,
  followService,
  type IdentityTemplate,
  InsecureConfigurationError,
  identityProblems,
  isLoopback,
  type Listener,
  localAddressText,
  type RegistrySession,
  systemClock,
  type TlsHandle,
  toRuleSource,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { listen, parseServerOptions } from '@sallyport/transport-mtls/spi';
import {
  expectedIdentity,
  type ParsedSidecarOptions,
  parseSidecarOptions,
  type ResolvedInbound,
  type ResolvedSidecarOptions,
  type ResolvedUpstream,
  type SidecarOptions,
} from './options.js';
import { Program } from './program.js';
import { fixedServers, type ServerSource, Servers } from './servers.js';
import { TcpLane } from './tcp-lane.js';
import { UpstreamPort } from './upstream.js';

/** What rules call a connection: `sallyport.sidecar.v1.Tunnel/<name of the inbound>`. */
const TUNNEL = 'sallyport.sidecar.v1.Tunnel';
/** How often readiness is looked at, ms: certificates end without telling. */
const CHECK_MS = 1000;

/** A program made a member of the mesh: others reach it, and it reaches others, over mutual TLS and by rules. */
export interface Sidecar {
  readonly name: string;
  readonly state: ServiceState;
  /** Whether the program should get traffic, and why not. */
  readonly readiness: Readiness;
  /** Where others reach the program; empty before `start`, after `stop` and without `inbound`. */
  readonly endpoints: readonly Endpoint[];
  /** Where the program reaches each upstream: `127.0.0.1:7001` or `unix:/path`. Empty before `start` and after `stop`. */
  readonly upstreams: Readonly<Record<string, string>>;
  /** Open connections: of others to the program, and of the program to upstreams. */
  readonly connections: { readonly inbound: number; readonly outbound: number };
  /** Listens to one type of event, or to all (`*`). Returns the function that unsubscribes. */
  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  /**
   * Validates everything, then binds. All or nothing: when it rejects, nothing is bound. A program that is not there yet is no reason
   * to reject: the sidecar is not ready until it is. Rejects with InsecureConfigurationError (every violation at once), CallError (an
   * address cannot be had) or UsageError (started twice).
   */
  start(): Promise<void>;
  /** Takes no new connection, lets the open ones end for `drain.graceMs`, closes. Twice, or before `start`, is harmless. */
  stop(): Promise<void>;
}

/** Options that are not secure are not thrown here but by `start()`, all of them at once. */
export function sidecar(options: SidecarOptions): Sidecar {
  return new SidecarInstance(parseSidecarOptions(options), options);
}

class SidecarInstance implements Sidecar {
  readonly name: string;
  readonly #parsed: ParsedSidecarOptions;
  readonly #clock: Clock;
  readonly #events: EventBus;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  readonly #ports = new Map<string, UpstreamPort>();
  #state: ServiceState = 'created';
  #tls: TlsHandle | undefined;
  #listener: Listener | undefined;
  #program: Program | undefined;
  #told: string | undefined;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(parsed: ParsedSidecarOptions, given: SidecarOptions) {
    this.#parsed = parsed;
    this.name = parsed.value?.name ?? (typeof given?.name === 'string' ? given.name : '(unnamed)');
    this.#clock = parsed.value?.clock ?? systemClock;
    this.#events = new EventBus(this.name, this.#clock, parsed.logger ?? consoleLogger());
  }

  get state(): ServiceState {
    return this.#state;
  }

  get readiness(): Readiness {
    const reasons: string[] = [];
    if (this.#state !== 'ready') reasons.push(`the sidecar is ${this.#state}`);
    const problem = this.#program?.problem;
    if (problem !== undefined) reasons.push(`the program cannot be reached: ${problem}`);
    if (this.#tls) reasons.push(...identityProblems(this.#tls, this.#clock.now()));
    return { ready: reasons.length === 0, reasons };
  }

  get endpoints(): readonly Endpoint[] {
    return this.#listener?.endpoints ?? [];
  }

  get upstreams(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.#ports].map(([name, port]) => [name, localAddressText(port.address)]));
  }

  get connections() {
    const outbound = [...this.#ports.values()].reduce((sum, port) => sum + port.connections, 0);
    return { inbound: this.#listener?.connections ?? 0, outbound };
  }

  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  on(type: never, listener: never): () => void {
    return this.#events.on(type, listener);
  }

  start(): Promise<void> {
    if (this.#starting || this.#stopping || this.#state !== 'created') {
      return Promise.reject(
        new UsageError(`the sidecar of ${this.name} was started or stopped before; make a new one`),
      );
    }
    this.#starting = this.#start();
    return this.#starting;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #start(): Promise<void> {
    try {
      const { tls, options, template } = await this.#validate();
      this.#tls = tls;
      this.#become('validated');
      await this.#openUpstreams(options, tls, template);
      if (options.inbound) await this.#openInbound(options, options.inbound, tls);
      this.#become('listening');
      this.#become('ready');
      this.#tellReadiness();
      const patrol = every(this.#clock, CHECK_MS, () => this.#tellReadiness());
      this.#opened.push(() => patrol.cancel());
    } catch (error) {
      await this.#unwind();
      this.#become('stopped');
      throw error;
    }
  }

  /** Collects every violation of every part, then throws them together. */
  async #validate(): Promise<{ tls: TlsHandle; options: ResolvedSidecarOptions; template: IdentityTemplate }> {
    const { violations, parts, value: options, template } = this.#parsed;
    const found: Violation[] = [...checkEnvironment(), ...violations];
    for (const part of parts) found.push(...(await part.check()));
    const tls = await this.#openIdentity(found);
    if (tls && options && template && found.length === 0) return { tls, options, template };
    const refused = distinct(found);
    this.#events.emit('configuration-refused', { violations: refused });
    throw new InsecureConfigurationError(`the sidecar of ${this.name}`, refused);
  }

  /** Opens the TLS source whatever else is wrong, so that a certificate of another service stands in the same report. */
  async #openIdentity(found: Violation[]): Promise<TlsHandle | undefined> {
    if (!this.#parsed.tls) return undefined;
    try {
      const tls = await this.#parsed.tls.open({ events: this.#events, clock: this.#clock });
      this.#opened.push(() => tls.close());
      found.push(...this.#identityMismatch(tls));
      return tls;
    } catch (error) {
      // Its violations stand in the report already.
      if (error instanceof InsecureConfigurationError && found.length > 0) return undefined;
      throw error;
    }
  }

  /** Callers look for a program under the identity of its name; one that only calls may have any. */
  #identityMismatch(tls: TlsHandle): Violation[] {
    const { value, template } = this.#parsed;
    if (!value?.inbound || !template) return [];
    const { identity } = tls.current();
    const expected = template.idFor(identity.trustDomain, value.name);
    if (expected.equals(identity)) return [];
    const problem = `the certificate is for ${identity}, but ${value.name} is ${expected}`;
    return [violation('identity-mismatch', 'sidecar.tls', problem)];
  }

  async #openUpstreams(options: ResolvedSidecarOptions, tls: TlsHandle, template: IdentityTemplate): Promise<void> {
    const { limits } = options;
    const session = await this.#openRegistry(options, tls);
    const allowLoopback =
      options.registry?.reach === 'machine' || (options.listen !== undefined && isLoopback(options.listen.host));
    const { trustDomain } = tls.current().identity;
    for (const [name, upstream] of Object.entries(options.upstreams)) {
      const expect = expectedIdentity(upstream, trustDomain, template);
      const source =
        upstream.addresses === undefined
          ? this.#follow(upstream, session, options, allowLoopback)
          : fixedServers(name, upstream.addresses, expect);
      const port = new UpstreamPort(
        {
          name,
          listen: upstream.listen,
          servers: new Servers(source, this.#clock),
          expect,
          // An address of the configuration was judged when it was read; a name must not turn out to be this machine.
          endpoints: { allowLoopback: upstream.addresses?.some(({ host }) => isLoopback(host)) ?? allowLoopback },
        },
        { tls, limits, events: this.#events, clock: this.#clock },
      );
      this.#opened.push(() => port.close());
      await port.bind();
      this.#ports.set(name, port);
    }
  }

  async #openRegistry({ registry }: ResolvedSidecarOptions, tls: TlsHandle): Promise<RegistrySession | undefined> {
    const session = await registry?.open({ service: this.name, events: this.#events, clock: this.#clock, tls });
    if (session) this.#opened.push(() => session.close());
    return session;
  }

  #follow(
    { service }: ResolvedUpstream,
    session: RegistrySession | undefined,
    { registry }: ResolvedSidecarOptions,
    allowLoopback: boolean,
  ): ServerSource {
    // The options were refused otherwise.
    if (!session || !registry || service === undefined) throw new UsageError('an upstream without servers');
    const view = followService({
      service,
      session,
      registry: registry.kind,
      events: this.#events,
      clock: this.#clock,
      endpoints: { allowLoopback },
    });
    this.#opened.push(() => view.close());
    return view;
  }

  async #openInbound(options: ResolvedSidecarOptions, inbound: ResolvedInbound, tls: TlsHandle): Promise<void> {
    const { limits } = options;
    const context = { events: this.#events, clock: this.#clock };
    const rules = await toRuleSource(options.authorize, 'sidecar.authorize').open(context);
    this.#opened.push(() => rules.close());
    const authorizer = new Authorizer(rules.current());
    const program = new Program({ ...inbound, connectTimeoutMs: limits.connectTimeoutMs }, this.#events, () =>
      this.#tellReadiness(),
    );
    this.#opened.push(() => program.stop());
    this.#program = program;
    await program.start(this.#clock);
    const method = `${TUNNEL}/${inbound.name}`;
    const lane = new TcpLane(
      { method, proxyProtocol: inbound.proxyProtocol, limits },
      { ...context, program, authorizer },
    );
    rules.onChange((changed) => {
      authorizer.replace(changed);
      lane.judgeAnew();
    });
    const listener = await listen({ service: this.name, tls, methods: [], ...context }, doorOptions(options), [
      lane.make,
    ]);
    this.#opened.push(() => listener.close());
    this.#listener = listener;
  }

  async #stop(): Promise<void> {
    // A start under way is not interrupted: it ends by itself, one way or the other.
    await this.#starting?.catch(ignore);
    if (this.#state === 'stopped') return;
    if (this.#state === 'created') return this.#become('stopped');
    this.#become('draining');
    this.#tellReadiness();
    const graceMs = this.#parsed.value?.drain.graceMs ?? 0;
    await Promise.all([
      this.#listener?.drain(graceMs),
      ...[...this.#ports.values()].map((port) => port.drain(graceMs)),
    ]);
    await this.#unwind();
    this.#become('stopped');
  }

  async #unwind(): Promise<void> {
    this.#tls = undefined;
    this.#listener = undefined;
    this.#program = undefined;
    this.#ports.clear();
    for (let close = this.#opened.pop(); close; close = this.#opened.pop()) {
      try {
        await close();
      } catch {
        // What cannot be closed must not keep the rest open.
      }
    }
  }

  /** Raises `readiness` when the answer has changed. */
  #tellReadiness(): void {
    const { ready, reasons } = this.readiness;
    const answer = reasons.join(';');
    if (this.#state === 'validated' || answer === this.#told) return;
    this.#told = answer;
    this.#events.emit('readiness', { ready, reasons });
  }

  #become(state: ServiceState): void {
    if (this.#state === state) return;
    const from = this.#state;
    this.#state = state;
    this.#events.emit('service-state', { from, to: state });
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

function ignore(): void {}
