import { randomUUID } from 'node:crypto';
import { Authorizer } from '../authorization/decide.js';
import { toRuleSource } from '../authorization/rule-source.js';
import type { ParsedRule } from '../authorization/rules.js';
import { type Clock, systemClock } from '../clock.js';
import type { Client } from '../contract/client-types.js';
import type { AnyContract } from '../contract/contract.js';
import type { Handlers } from '../contract/handlers.js';
import { type ContractSource, contractOf } from '../contract/service-definition.js';
import { CallError, UsageError } from '../errors.js';
import { consoleLogger } from '../events/console-logger.js';
import { EventBus, type EventListener } from '../events/event-bus.js';
import type { EventType } from '../events/events.js';
import type { IdentityTemplate } from '../identity/template.js';
import { observeTls } from '../metrics/tls-metrics.js';
import { checkEnvironment } from '../policy/environment-guard.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { distinct, type Violation, violation } from '../policy/violation.js';
import { isLoopback } from '../registry/endpoint.js';
import type { Endpoint, RegistrySession } from '../registry/registry.js';
import { followService, type RegistryView } from '../registry/view.js';
import { byVersion, byZone } from '../selector/filters.js';
import { selector } from '../selector/selectors.js';
import type { TlsHandle } from '../tls/source.js';
import type { ConnectionPool, Listener } from '../transport/transport.js';
import { UserVerifier } from '../user/user-verifier.js';
import { Caller } from './caller.js';
import { clientFor } from './client.js';
import { type ParsedClientOptions, parseServiceClientOptions, type ServiceClientOptions } from './client-options.js';
import { type AnyHandler, serveMethod } from './dispatcher.js';
import type { ServiceState } from './lifecycle.js';
import { type Readiness, ReadinessMonitor } from './readiness.js';
import { Registration } from './registration.js';
import { type ParsedServiceOptions, parseServiceOptions, type ServiceOptions } from './service-options.js';

/** A service: serves contracts, calls other services, both over mutual TLS and found in a registry. */
export interface Service {
  readonly name: string;
  readonly state: ServiceState;
  /** Whether it should get traffic, and why not. */
  readonly readiness: Readiness;
  /** Where it listens; empty before `start`, after `stop` and without a server. */
  readonly endpoints: readonly Endpoint[];
  /** Its id in the registry. */
  readonly instanceId: string;
  /** Serves a contract: every method needs its handler. Only before `start`; UsageError otherwise. */
  handle<C extends ContractSource>(contract: C, handlers: Handlers<C>): this;
  /** A client of another service. May be made at any time; calls work from `start` to `stop`. */
  client<C extends ContractSource>(contract: C, options: ServiceClientOptions): Client<C>;
  /** Listens to one type of event, or to all (`*`). Returns the function that unsubscribes. */
  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  /**
   * Validates everything, binds, registers, becomes ready. All or nothing: when it rejects, nothing is bound or registered.
   * A registry that is out of reach is no reason to reject: the service then listens, is not ready, says so, and becomes ready
   * as soon as it could register. Rejects with InsecureConfigurationError (every violation at once), CallError (the address
   * cannot be had, the registry refuses) or UsageError (started twice).
   */
  start(): Promise<void>;
  /** Drains, deregisters, closes; bounded by the drain options. Twice, or before `start`, is harmless. */
  stop(): Promise<void>;
}

/** Options that are not secure are not thrown here but by `start()`, all of them at once. */
export function createService(options: ServiceOptions): Service {
  return new ServiceInstance(parseServiceOptions(options), options);
}

interface Running {
  readonly tls: TlsHandle;
  readonly session: RegistrySession;
  readonly pool: ConnectionPool;
  readonly views: Map<string, RegistryView>;
}

class ServiceInstance implements Service {
  readonly name: string;
  readonly instanceId: string;
  readonly #parsed: ParsedServiceOptions;
  readonly #clock: Clock;
  readonly #events: EventBus;
  readonly #readiness: ReadinessMonitor;
  readonly #contracts = new Map<string, { contract: AnyContract; handlers: Readonly<Record<string, AnyHandler>> }>();
  readonly #clients: ParsedClientOptions[] = [];
  readonly #called = new Set<string>();
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  #state: ServiceState = 'created';
  #running: Running | undefined;
  #listener: Listener | undefined;
  #registration: Registration | undefined;
  #outgoing: { readonly authorizer: Authorizer; readonly self: TlsHandle } | undefined;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(parsed: ParsedServiceOptions, given: ServiceOptions) {
    this.#parsed = parsed;
    this.name = parsed.value?.name ?? (typeof given?.name === 'string' ? given.name : '(unnamed)');
    this.instanceId = `${this.name}-${randomUUID()}`;
    this.#clock = parsed.value?.clock ?? systemClock;
    this.#events = new EventBus(this.name, this.#clock, parsed.logger ?? consoleLogger());
    this.#readiness = new ReadinessMonitor(
      { state: () => this.#state, registry: () => this.#running?.session, tls: () => this.#running?.tls },
      this.#events,
      this.#clock,
    );
  }

  get state(): ServiceState {
    return this.#state;
  }

  get readiness(): Readiness {
    return this.#readiness.current();
  }

  get endpoints(): readonly Endpoint[] {
    return this.#listener?.endpoints ?? [];
  }

  handle<C extends ContractSource>(contract: C, handlers: Handlers<C>): this {
    if (this.#state !== 'created' || this.#starting)
      throw new UsageError(`handle() comes before start() of ${this.name}`);
    const normal = contractOf(contract);
    if (this.#contracts.has(normal.name)) throw new UsageError(`${this.name} handles ${normal.name} already`);
    const given = (handlers ?? {}) as Readonly<Record<string, AnyHandler>>;
    for (const name of Object.keys(normal.methods)) {
      if (typeof given[name] !== 'function') throw new UsageError(`${normal.name}: no handler for ${name}`);
    }
    for (const name of Object.keys(given)) {
      if (!Object.hasOwn(normal.methods, name)) throw new UsageError(`${normal.name} has no method ${name}`);
    }
    this.#contracts.set(normal.name, { contract: normal, handlers: { ...given } });
    return this;
  }

  client<C extends ContractSource>(contract: C, options: ServiceClientOptions): Client<C> {
    const parsed = parseServiceClientOptions(options);
    if (parsed.violations.length > 0 && this.#state !== 'created') {
      throw new InsecureConfigurationError(`client() of ${this.name}`, parsed.violations);
    }
    // From start() on they have been checked above; keeping them would only make a list that grows.
    if (this.#state === 'created') this.#clients.push(parsed);
    const normal = contractOf(contract);
    for (const method of Object.values(normal.methods)) this.#called.add(method.path);
    const service = parsed.value?.service ?? '';
    let caller: { readonly running: Running; readonly caller: Caller } | undefined;
    return clientFor(normal, {
      service,
      interceptors: this.#parsed.value?.interceptors?.client ?? [],
      defaultDeadlineMs: parsed.value?.deadlineMs ?? this.#parsed.value?.client.defaultDeadlineMs ?? 0,
      mayCall: (path) => this.#mayCall(path),
      caller: () => {
        const running = this.#running;
        if (!running) throw new CallError('UNAVAILABLE', `${this.name} cannot call: ${this.#whyNotRunning()}`);
        if (caller?.running !== running) caller = { running, caller: this.#callerOf(service, parsed, running) };
        return caller.caller;
      },
    }) as Client<C>;
  }

  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  on(type: never, listener: never): () => void {
    return this.#events.on(type, listener);
  }

  start(): Promise<void> {
    if (this.#starting || this.#stopping || this.#state !== 'created') {
      return Promise.reject(new UsageError(`${this.name} was started or stopped before; make a new service`));
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
      const tls = await this.#validate();
      this.#become('validated');
      const running = await this.#open(tls);
      await this.#listen(tls);
      await this.#register(running);
      this.#readiness.start();
      this.#opened.push(() => this.#readiness.stop());
    } catch (error) {
      await this.#unwind();
      this.#become('stopped');
      throw error;
    }
  }

  /** Collects every violation of every part, then throws them together. Resolves to the open TLS identity. */
  async #validate(): Promise<TlsHandle> {
    if (this.#contracts.size > 0 && this.#parsed.value && !this.#parsed.value.server) {
      throw new UsageError(`${this.name} handles contracts but has no server: pass server: server({...})`);
    }
    const { violations, parts } = this.#parsed;
    const found: Violation[] = [...checkEnvironment(), ...violations, ...this.#clients.flatMap((c) => c.violations)];
    for (const part of parts) found.push(...(await part.check()));
    const tls = await this.#openIdentity(found);
    if (tls && found.length === 0) return tls;
    const refused = distinct(found);
    this.#events.emit('configuration-refused', { violations: refused });
    throw new InsecureConfigurationError(`service ${this.name}`, refused);
  }

  /** Opens the TLS source whatever else is wrong, so that a certificate of another service stands in the same report. */
  async #openIdentity(found: Violation[]): Promise<TlsHandle | undefined> {
    const { tls: source, template } = this.#parsed;
    if (!source || !template) return undefined;
    try {
      const tls = await source.open({ events: this.#events, clock: this.#clock });
      this.#opened.push(() => tls.close());
      found.push(...this.#identityMismatch(tls, template));
      return tls;
    } catch (error) {
      // Its violations stand in the report already.
      if (error instanceof InsecureConfigurationError && found.length > 0) return undefined;
      throw error;
    }
  }

  /** Callers look for a service under the identity of its name; what only calls may have any that its callees' rules name. */
  #identityMismatch(tls: TlsHandle, template: IdentityTemplate): Violation[] {
    const { serves, violations } = this.#parsed;
    // Without a valid name there is no identity to expect.
    if (!serves || violations.some(({ path }) => path === 'service.name')) return [];
    const { identity } = tls.current();
    const expected = template.idFor(identity.trustDomain, this.name);
    if (expected.equals(identity)) return [];
    const problem = `the certificate is for ${identity}, but ${this.name} is ${expected}`;
    return [violation('identity-mismatch', 'service.tls', problem)];
  }

  async #open(tls: TlsHandle): Promise<Running> {
    const options = this.#options();
    const { registry, client, authorizeOutgoing } = options;
    const context = { service: this.name, events: this.#events, clock: this.#clock, tls };
    if (authorizeOutgoing !== undefined) {
      this.#outgoing = { authorizer: await this.#authorizer(authorizeOutgoing, 'authorizeOutgoing'), self: tls };
    }
    this.#opened.push(observeTls(context));
    const session = await registry.open(context);
    this.#opened.push(() => session.close());
    const pool = client.open(context);
    this.#opened.push(() => pool.close());
    const views = new Map<string, RegistryView>();
    this.#opened.push(() => {
      for (const view of views.values()) view.close();
    });
    this.#running = { tls, session, pool, views };
    return this.#running;
  }

  async #listen(tls: TlsHandle): Promise<void> {
    const { server, authorize, interceptors } = this.#options();
    if (!server) return;
    const authorizer = await this.#authorizer(authorize, 'authorize', (rules) => this.#warnOf(rules));
    const { userSources } = this.#parsed;
    const context = {
      authorizer,
      events: this.#events,
      clock: this.#clock,
      interceptors: interceptors?.server ?? [],
      unaryDeadlineMs: server.unaryDeadlineMs,
      users: userSources && new UserVerifier({ from: userSources, tls, clock: this.#clock }),
    };
    const methods = [...this.#contracts.values()].flatMap(({ contract, handlers }) =>
      Object.entries(contract.methods).map(([name, method]) =>
        serveMethod(method, handlers[name] as AnyHandler, context),
      ),
    );
    const listener = await server.listen({
      service: this.name,
      tls,
      events: this.#events,
      clock: this.#clock,
      methods,
    });
    this.#opened.push(() => listener.close());
    this.#listener = listener;
    this.#become('listening');
  }

  /** Follows the rules for as long as the service runs. */
  async #authorizer(
    rules: unknown,
    option: string,
    look: (rules: readonly ParsedRule[]) => void = () => {},
  ): Promise<Authorizer> {
    const context = { events: this.#events, clock: this.#clock };
    const source = await toRuleSource(rules, `service.${option}`).open(context);
    this.#opened.push(() => source.close());
    const authorizer = new Authorizer(source.current());
    look(source.current());
    source.onChange((changed) => {
      authorizer.replace(changed);
      look(changed);
    });
    return authorizer;
  }

  /** Rules may stand for several versions of a service, so one that names no method of this one is no reason to refuse. */
  #warnOf(rules: readonly ParsedRule[]): void {
    for (const { name, methods } of rules) {
      for (const { text, wholeService } of methods) {
        const contract = this.#contracts.get(text.slice(0, text.indexOf('/')))?.contract;
        if (!contract || wholeService) continue;
        const isKnown = Object.values(contract.methods).some(({ path }) => path === `/${text}`);
        if (!isKnown) this.#events.emit('rule-without-method', { rule: name, method: text });
      }
    }
  }

  async #register({ session, tls }: Running): Promise<void> {
    const listener = this.#listener;
    if (!listener) return this.#become('ready');
    const { version, metadata, zone, weight, registry } = this.#options();
    const registration = new Registration(
      {
        id: this.instanceId,
        service: this.name,
        version,
        endpoints: listener.endpoints,
        identity: tls.current().identity.toString(),
        metadata: metadata ?? {},
        weight,
        zone: zone ?? '',
        contracts: [...this.#contracts.keys()],
      },
      {
        session,
        registry: registry.kind,
        events: this.#events,
        clock: this.#clock,
        onRegistered: () => this.#registered(),
      },
    );
    this.#registration = registration;
    this.#opened.push(() => registration.close());
    await registration.start();
  }

  #registered(): void {
    if (this.#state !== 'listening') return;
    this.#become('registered');
    this.#become('ready');
    this.#readiness.tell();
  }

  async #stop(): Promise<void> {
    // A start under way is not interrupted: it ends by itself, one way or the other.
    await this.#starting?.catch(ignore);
    if (this.#state === 'stopped') return;
    if (this.#state === 'created') return this.#become('stopped');
    this.#become('draining');
    this.#readiness.tell();
    await this.#drain();
    await this.#unwind();
    this.#become('stopped');
  }

  async #drain(): Promise<void> {
    const { spreadMs, graceMs } = this.#options().drain;
    await this.#registration?.drain(spreadMs);
    await this.#listener?.drain(graceMs);
    await this.#registration?.withdraw();
  }

  async #unwind(): Promise<void> {
    this.#running = undefined;
    this.#listener = undefined;
    for (let close = this.#opened.pop(); close; close = this.#opened.pop()) {
      try {
        await close();
      } catch {
        // What cannot be closed must not keep the rest open.
      }
    }
  }

  #callerOf(service: string, parsed: ParsedClientOptions, running: Running): Caller {
    const { zone } = this.#options();
    const { trustDomain } = running.tls.current().identity;
    const template = this.#parsed.template;
    if (!template || !parsed.value) throw new UsageError('a client with refused options cannot call');
    const { version, filters = [] } = parsed.value;
    const view = this.#viewOf(service, running);
    return new Caller(
      {
        service,
        expect: parsed.expect(trustDomain, template),
        selector: parsed.value.selector ?? selector.leastPending(),
        filters: [
          ...(version === undefined ? [] : [byVersion(version)]),
          ...filters,
          ...(zone === undefined ? [] : [byZone(zone)]),
        ],
      },
      { view, pool: running.pool, clock: this.#clock },
    );
  }

  #whyNotRunning(): string {
    if (this.#stopping || this.#state === 'stopped') return 'it has been stopped';
    return this.#starting ? 'it is still starting' : 'call start() first';
  }

  #viewOf(service: string, running: Running): RegistryView {
    const known = running.views.get(service);
    if (known) return known;
    const { registry } = this.#options();
    const view = followService({
      service,
      session: running.session,
      registry: registry.kind,
      events: this.#events,
      clock: this.#clock,
      // A registry of this machine holds loopback addresses by nature; one on the network must not aim us at ourselves.
      endpoints: { allowLoopback: registry.reach === 'machine' || this.endpoints.some(({ host }) => isLoopback(host)) },
    });
    running.views.set(service, view);
    return view;
  }

  #mayCall(path: string): boolean {
    if (!this.#outgoing) return this.#called.has(path);
    const self = this.#outgoing.self.current().identity;
    const { allowed, rule } = this.#outgoing.authorizer.decide(self, path);
    if (!allowed) this.#events.emit('call-denied', { peer: self.toString(), method: path.slice(1), rule });
    return allowed;
  }

  #options() {
    if (!this.#parsed.value) throw new UsageError(`the options of ${this.name} were refused`);
    return this.#parsed.value;
  }

  #become(state: ServiceState): void {
    if (this.#state === state) return;
    const from = this.#state;
    this.#state = state;
    this.#events.emit('service-state', { from, to: state });
  }
}

function ignore(): void {}
