import { randomUUID } from 'node:crypto';
import {
  consoleLogger,
  type EventListener,
  type EventType,
  type Readiness,
  type ServiceState,
  silentLogger,
  UsageError,
} from '@sallyport/core';
import {
  type Clock,
  checkEnvironment,
  distinct,
  type Endpoint,
  EventBus,
  every,
  type IdentityTemplate,
  InsecureConfigurationError,
  identityProblems,
  observeTls,
  Registration,
  type RegistrySession,
  systemClock,
  type TlsHandle,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { openSidecarAdmin } from './admin/sidecar-admin.js';
import { observeSidecar } from './admin/sidecar-metrics.js';
import { ListeningSockets } from './handover/listening-sockets.js';
import { type SuccessorOptions, startSuccessor } from './handover/successor.js';
import { Inbound } from './inbound.js';
import {
  type ParsedSidecarOptions,
  parseSidecarOptions,
  type ResolvedInbound,
  type ResolvedSidecarOptions,
  type SidecarOptions,
} from './options.js';
import { Outbound } from './outbound.js';

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
  /** Where health, metrics and the rest are told: `127.0.0.1:9901` or `unix:/path`. Undefined without `admin`, before `start` and after `stop`. */
  readonly adminAddress: string | undefined;
  /** Listens to one type of event, or to all (`*`). Returns the function that unsubscribes. */
  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  /** Everything that is wrong with the options, as far as it can be told without opening anything. */
  check(): Promise<readonly Violation[]>;
  /**
   * Validates everything, then binds. All or nothing: when it rejects, nothing is bound. A program that is not there yet is no reason
   * to reject: the sidecar is not ready until it is. Rejects with InsecureConfigurationError (every violation at once), CallError (an
   * address cannot be had) or UsageError (started twice).
   */
  start(): Promise<void>;
  /**
   * Starts the next process of this program, in whatever version is installed by now, and hands it the listening sockets: nobody is
   * turned away meanwhile. Resolves with its process id once it serves; `stop()` then ends this one. Rejects with CallError when it
   * does not come to serve, and with UsageError when this one does not; nothing has changed then.
   */
  handOver(options?: SuccessorOptions): Promise<number>;
  /**
   * Takes other upstreams or rules into use while it runs; what is left out stays. Open connections stay: those of callers that the new
   * rules keep out are cut, those to what is no upstream any more have `drain.graceMs` to end. Rejects with
   * InsecureConfigurationError, with CallError (an address cannot be had) or with UsageError (not ready); nothing has changed then.
   */
  replace(changes: SidecarChanges): Promise<void>;
  /** Takes no new connection, lets the open ones end for `drain.graceMs`, closes. Twice, or before `start`, is harmless. */
  stop(): Promise<void>;
}

/** What may change while a sidecar runs. */
export type SidecarChanges = Pick<SidecarOptions, 'upstreams' | 'authorize'>;

/** Options that are not secure are not thrown here but by `start()`, all of them at once. */
export function sidecar(options: SidecarOptions): Sidecar {
  return new SidecarInstance(options);
}

export class SidecarInstance implements Sidecar {
  readonly name: string;
  readonly #parsed: ParsedSidecarOptions;
  protected readonly clock: Clock;
  protected readonly events: EventBus;
  readonly #sockets: ListeningSockets;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  #state: ServiceState = 'created';
  #tls: TlsHandle | undefined;
  #session: RegistrySession | undefined;
  #registration: Registration | undefined;
  #inbound: Inbound | undefined;
  #outbound: Outbound | undefined;
  #adminAddress: string | undefined;
  #told: string | undefined;
  #given: SidecarOptions;
  /** The options with the last change of them. */
  #inForce: ResolvedSidecarOptions | undefined;
  #handingOver = false;
  #replacing: Promise<unknown> = Promise.resolve();
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(given: SidecarOptions) {
    const parsed = parseSidecarOptions(given);
    this.#parsed = parsed;
    this.#given = given;
    this.name = parsed.value?.name ?? (typeof given?.name === 'string' ? given.name : '(unnamed)');
    this.clock = parsed.value?.clock ?? systemClock;
    this.#sockets = parsed.value?.sockets ?? new ListeningSockets();
    this.events = new EventBus(this.name, this.clock, parsed.logger ?? consoleLogger());
  }

  get state(): ServiceState {
    return this.#state;
  }

  get readiness(): Readiness {
    const reasons: string[] = [];
    if (this.#state !== 'ready') reasons.push(`the sidecar is ${this.#state}`);
    const problem = this.#inbound?.program.problem;
    if (problem !== undefined) reasons.push(`the program cannot be reached: ${problem}`);
    if (this.#session?.state === 'down') reasons.push('the registry is down');
    if (this.#tls) reasons.push(...identityProblems(this.#tls, this.clock.now()));
    return { ready: reasons.length === 0, reasons };
  }

  get endpoints(): readonly Endpoint[] {
    return this.#inbound?.endpoints ?? [];
  }

  get upstreams(): Readonly<Record<string, string>> {
    return this.#outbound?.addresses ?? {};
  }

  get adminAddress(): string | undefined {
    return this.#adminAddress;
  }

  get connections() {
    return { inbound: this.#inbound?.connections ?? 0, outbound: this.#outbound?.connections ?? 0 };
  }

  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  on(type: never, listener: never): () => void {
    return this.events.on(type, listener);
  }

  async check(): Promise<readonly Violation[]> {
    const { violations, parts } = this.#parsed;
    const found = [...checkEnvironment(), ...violations];
    for (const part of parts) found.push(...(await part.check()));
    found.push(...(await this.#mismatchInFiles()));
    return distinct(found);
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

  async handOver(options?: SuccessorOptions): Promise<number> {
    if (this.#state !== 'ready' || this.#handingOver) {
      throw new UsageError(`the sidecar of ${this.name} is ${this.#handingOver ? 'being handed over' : this.#state}`);
    }
    this.#handingOver = true;
    this.events.emit('handover', { state: 'started', detail: '' });
    try {
      const pid = await startSuccessor(this.#sockets, options);
      this.#sockets.handedOver();
      this.events.emit('handover', { state: 'completed', detail: `process ${pid}` });
      return pid;
    } catch (error) {
      this.#handingOver = false;
      this.events.emit('handover', { state: 'failed', detail: (error as Error).message });
      throw error;
    }
  }

  replace(changes: SidecarChanges): Promise<void> {
    const replaced = this.#replacing.then(() => this.#replace(changes));
    this.#replacing = replaced.catch(ignore);
    return replaced;
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
      await this.#openAdmin(options, tls);
      const session = await this.#openRegistry(options, tls);
      await this.#openOutbound(options, tls, template, session);
      if (options.inbound) await this.#openInbound(options, options.inbound, tls);
      this.#become('listening');
      await this.#register(options, tls, session);
      this.#become('ready');
      this.#tellReadiness();
      for (const socket of this.#sockets.serving()) this.events.emit('socket-unclaimed', { socket });
      const patrol = every(this.clock, CHECK_MS, () => this.#tellReadiness());
      this.#opened.push(() => patrol.cancel());
    } catch (error) {
      await this.#unwind();
      this.#become('stopped');
      throw error;
    }
  }

  /** Collects every violation of every part, then throws them together. */
  async #validate(): Promise<{ tls: TlsHandle; options: ResolvedSidecarOptions; template: IdentityTemplate }> {
    const { value: options, template } = this.#parsed;
    const found = [...(await this.check())];
    const tls = await this.#openIdentity(found);
    if (tls && options && template && found.length === 0) return { tls, options, template };
    const refused = distinct(found);
    this.events.emit('configuration-refused', { violations: refused });
    throw new InsecureConfigurationError(`the sidecar of ${this.name}`, refused);
  }

  /** Opens the TLS source whatever else is wrong, so that a certificate of another service stands in the same report. */
  async #openIdentity(found: Violation[]): Promise<TlsHandle | undefined> {
    if (!this.#parsed.tls) return undefined;
    try {
      const tls = await this.#parsed.tls.open({ events: this.events, clock: this.clock });
      this.#opened.push(() => tls.close());
      found.push(...this.#identityMismatch(tls));
      return tls;
    } catch (error) {
      // Its violations stand in the report already.
      if (error instanceof InsecureConfigurationError && found.length > 0) return undefined;
      throw error;
    }
  }

  /** Files tell whose certificate they hold; other sources would have to be asked for one. */
  async #mismatchInFiles(): Promise<Violation[]> {
    const { tls: source } = this.#parsed;
    if (source?.kind !== 'files' || (await source.check()).length > 0) return [];
    const tls = await source.open({ events: new EventBus(this.name, this.clock, silentLogger), clock: this.clock });
    const found = this.#identityMismatch(tls);
    tls.close();
    return found;
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

  async #openOutbound(
    options: ResolvedSidecarOptions,
    tls: TlsHandle,
    template: IdentityTemplate,
    session: RegistrySession | undefined,
  ): Promise<void> {
    const outbound = new Outbound(options, {
      tls,
      template,
      session,
      events: this.events,
      clock: this.clock,
      sockets: this.#sockets,
    });
    this.#opened.push(() => outbound.close());
    await outbound.open();
    this.#outbound = outbound;
  }

  /** First, so that it can be asked for as long as anything else is open. */
  async #openAdmin(options: ResolvedSidecarOptions, tls: TlsHandle): Promise<void> {
    const { events, clock } = this;
    const told = {
      subject: this,
      events,
      clock,
      tls,
      sockets: this.#sockets,
      inbound: () => this.#inbound,
      outbound: () => this.#outbound,
      options: () => this.#inForce ?? options,
    };
    this.#opened.push(observeTls({ service: this.name, tls, events, clock }), observeSidecar(told));
    if (!options.admin) return;
    const admin = await openSidecarAdmin(options.admin, told);
    this.#opened.push(() => admin.close());
    this.#adminAddress = admin.address;
  }

  async #openRegistry({ registry }: ResolvedSidecarOptions, tls: TlsHandle): Promise<RegistrySession | undefined> {
    const session = await registry?.open({ service: this.name, events: this.events, clock: this.clock, tls });
    if (session) this.#opened.push(() => session.close());
    this.#session = session;
    return session;
  }

  async #openInbound(options: ResolvedSidecarOptions, inbound: ResolvedInbound, tls: TlsHandle): Promise<void> {
    const door = new Inbound(options, inbound, {
      tls,
      events: this.events,
      clock: this.clock,
      sockets: this.#sockets,
      onProgramChange: () => this.#programChanged(),
    });
    this.#inbound = door;
    this.#opened.push(() => door.close());
    await door.open();
  }

  /** Others find the program in the registry, now if it is well, else as soon as it is. */
  async #register(
    { registry, inbound, version, metadata, weight, zone = '' }: ResolvedSidecarOptions,
    tls: TlsHandle,
    session: RegistrySession | undefined,
  ): Promise<void> {
    if (!registry || !session || !inbound) return;
    const registration = new Registration(
      {
        id: `${this.name}-${randomUUID()}`,
        service: this.name,
        version,
        endpoints: this.endpoints,
        identity: tls.current().identity.toString(),
        metadata: { ...metadata, protocol: inbound.protocol },
        weight,
        zone,
        contracts: [],
      },
      { session, registry: registry.kind, events: this.events, clock: this.clock },
    );
    this.#registration = registration;
    this.#opened.push(() => registration.close());
    if (this.#inbound?.program.problem === undefined) await registration.start();
  }

  #programChanged(): void {
    this.#registration?.mark(this.#inbound?.program.problem === undefined ? 'ready' : 'starting');
    this.#tellReadiness();
  }

  async #replace({ upstreams, authorize }: SidecarChanges): Promise<void> {
    const [inbound, outbound] = [this.#inbound, this.#outbound];
    if (this.#state !== 'ready' || !outbound) throw new UsageError(`the sidecar of ${this.name} is ${this.#state}`);
    const given = {
      ...this.#given,
      ...(upstreams === undefined ? {} : { upstreams }),
      ...(authorize === undefined ? {} : { authorize }),
    };
    const { value, violations } = parseSidecarOptions(given);
    if (!value) throw new InsecureConfigurationError(`the sidecar of ${this.name}`, violations);
    const rules = authorize === undefined ? undefined : await inbound?.openRules(authorize);
    try {
      await outbound.replace(value.upstreams, value.drain.graceMs);
    } catch (error) {
      rules?.close();
      throw error;
    }
    if (rules) inbound?.follow(rules);
    this.#given = given;
    this.#inForce = value;
  }

  async #stop(): Promise<void> {
    // A start or a change under way is not interrupted: it ends by itself, one way or the other.
    await this.#starting?.catch(ignore);
    await this.#replacing;
    if (this.#state === 'stopped') return;
    if (this.#state === 'created') return this.#become('stopped');
    this.#become('draining');
    this.#tellReadiness();
    const { spreadMs = 0, graceMs = 0 } = this.#parsed.value?.drain ?? {};
    await this.#registration?.drain(spreadMs);
    const deadlineAt = Date.now() + graceMs;
    await this.#inbound?.drain(graceMs);
    // Until then the program may need its upstreams for what it has to finish.
    await this.#outbound?.drain(Math.max(0, deadlineAt - Date.now()));
    await this.#registration?.withdraw();
    await this.#unwind();
    this.#become('stopped');
  }

  async #unwind(): Promise<void> {
    this.#tls = undefined;
    this.#adminAddress = undefined;
    this.#session = undefined;
    this.#registration = undefined;
    this.#inbound = undefined;
    this.#outbound = undefined;
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
    this.events.emit('readiness', { ready, reasons });
  }

  #become(state: ServiceState): void {
    if (this.#state === state) return;
    const from = this.#state;
    this.#state = state;
    this.events.emit('service-state', { from, to: state });
  }
}

function ignore(): void {}
