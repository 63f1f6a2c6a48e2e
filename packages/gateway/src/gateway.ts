import { metrics as applicationMeters } from '@opentelemetry/api';
import { openAdmin } from '@sallyport/admin';
import {
  CallError,
  consoleLogger,
  createService,
  type Endpoint,
  type EventListener,
  type EventType,
  InsecureConfigurationError,
  type Readiness,
  type Registry,
  type Service,
  type ServiceState,
  silentLogger,
  UsageError,
} from '@sallyport/core';
import {
  type Clock,
  checkEnvironment,
  EventBus,
  type EventSink,
  isLoopback,
  observeTls,
  systemClock,
  type TlsHandle,
  type Violation,
  violation,
  type WebTls,
  type WebTlsHandle,
  webTls,
} from '@sallyport/core/spi';
import { client } from '@sallyport/transport-mtls';
import { adminPages } from './admin/admin-pages.js';
import { type Application, application, type RouteHandler } from './application.js';
import {
  type AuthenticatorPool,
  AuthHandlers,
  credentialHeadersOf,
  distinctHandlers,
} from './auth/authentication-stage.js';
import { Cors } from './cors.js';
import { clientAddressBehind } from './edge/client-address.js';
import { EdgeGuard } from './edge/edge-guard.js';
import { type EdgeServer, edgeServer } from './edge/edge-server.js';
import type { Stage } from './exchange.js';
import { ConcurrencyLimit } from './limits/concurrency-limit.js';
import { RateLimits } from './limits/rate-limit.js';
import { LocalRateLimits } from './limits/rate-limit-store.js';
import { GatewayMetrics } from './metrics/gateway-metrics.js';
import { openApiDocument } from './openapi/openapi-document.js';
import {
  type GatewayChanges,
  type GatewayOptions,
  type ParsedGatewayOptions,
  parseGatewayOptions,
  type ResolvedGatewayOptions,
  withChanges,
} from './options.js';
import { ProxyCache } from './proxy/proxy-cache.js';
import { proxyHandler } from './proxy/proxy-handler.js';
import { Upstreams } from './proxy/upstreams.js';
import { answerCache, textBytes } from './resilience/answer-cache.js';
import { type Breaker, Breakers, type CallingRoute } from './resilience/breaker.js';
import { sendJson } from './routes/json-answer.js';
import { localHandler } from './routes/local-handler.js';
import type { Route } from './routes/route.js';
import { type RouteTable, routeTable } from './routes/route-table.js';
import { type RpcRoute, unaryHandler } from './routes/rpc-handler.js';
import { socketHandler, streamHandler } from './streams/stream-handler.js';
import type { StreamContext } from './streams/stream-limits.js';
import { UserTokens } from './user/user-tokens.js';

/** The one HTTPS door in front of the services. */
export interface Gateway {
  readonly name: string;
  readonly state: ServiceState;
  /** Whether it should get traffic, and why not. */
  readonly readiness: Readiness;
  /** Where it listens; empty before `start` and after `stop`. */
  readonly endpoints: readonly Endpoint[];
  /** Where health, readiness, metrics and the routes are told: `127.0.0.1:9090`. Undefined without `admin`, and before `start`. */
  readonly adminAddress: string | undefined;
  /** Listens to one type of event, or to all (`*`). Returns the function that unsubscribes. */
  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  /** Everything that is wrong with the options, as far as it shows without opening anything. Binds nothing. */
  check(): Promise<readonly Violation[]>;
  /**
   * Validates everything, connects to the registry, binds. All or nothing. Rejects with InsecureConfigurationError (every
   * violation at once), CallError (the address cannot be had) or UsageError (started twice).
   */
  start(): Promise<void>;
  /**
   * Takes another list of routes into use without dropping a request: those under way end by the old list, the next ones
   * follow the new one. What is left out has its default. Rejects with InsecureConfigurationError, with what a handler
   * could not be opened for, or with UsageError (not ready); then everything stays as it is.
   */
  replace(changes: GatewayChanges): Promise<void>;
  /** Drains and closes; bounded by the drain options. Twice, or before `start`, is harmless. */
  stop(): Promise<void>;
}

/** Options that are not secure are not thrown here but by `start()`, all of them at once. */
export function gateway(options: GatewayOptions): Gateway {
  return new GatewayInstance(options);
}

/** One list of routes in use, with everything that was opened for it. */
interface Generation {
  readonly routes: readonly Route[];
  readonly application: Application;
  close(): Promise<void>;
}

/** How long the last words of streams may take when the gateway stops, ms. */
const GOODBYE_MS = 100;

export class GatewayInstance implements Gateway {
  readonly name: string;
  readonly events: EventBus;
  readonly #plan: Plan;
  readonly #clock: Clock;
  readonly #tls: WebTls;
  readonly #metrics: GatewayMetrics;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  readonly #leaving = new AbortController();
  #state: ServiceState = 'created';
  #endpoints: readonly Endpoint[] = [];
  #adminAddress: string | undefined;
  #service: Service | undefined;
  #certificates: WebTlsHandle | undefined;
  /** Signs what services are told of users. */
  #identity: TlsHandle | undefined;
  #edge: EdgeServer | undefined;
  #concurrency: ConcurrencyLimit | undefined;
  #breakers: Breakers | undefined;
  /** The last is the one in use; those before it have requests under way. */
  readonly #generations: Generation[] = [];
  readonly #authenticators: AuthenticatorPool = new Map();
  readonly #rateLimits: LocalRateLimits;
  #replacing: Promise<unknown> = Promise.resolve();
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: GatewayOptions) {
    this.#plan = planOf(options);
    const { value, given } = this.#plan.parsed;
    this.name = value?.name ?? 'gateway';
    this.#clock = given.clock ?? systemClock;
    this.#rateLimits = new LocalRateLimits(this.#clock);
    this.events = new EventBus(this.name, this.#clock, given.logger ?? consoleLogger());
    this.#tls = webTls(given.tls, 'gateway.tls');
    this.#metrics = new GatewayMetrics(this.name, this.events, {
      connections: () => this.#edge?.connections ?? 0,
      pending: () => this.#pending(),
      breakers: () => this.#breakers?.all() ?? [],
    });
  }

  get state(): ServiceState {
    return this.#state;
  }

  get endpoints(): readonly Endpoint[] {
    return this.#endpoints;
  }

  get adminAddress(): string | undefined {
    return this.#adminAddress;
  }

  get readiness(): Readiness {
    const own = this.#state === 'ready' ? [] : [`the gateway is ${this.#state}`];
    const expired = (this.#certificates?.notAfter ?? Number.POSITIVE_INFINITY) <= this.#clock.now();
    const reasons = [...own, ...(expired ? ['a certificate for clients has expired'] : []), ...this.#behind()];
    return { ready: reasons.length === 0, reasons };
  }

  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  on(type: never, listener: never): () => void {
    return this.events.on(type, listener);
  }

  start(): Promise<void> {
    if (this.#starting || this.#stopping) {
      return Promise.reject(new UsageError(`${this.name} was started or stopped before; make a new gateway`));
    }
    this.#starting = this.#start();
    return this.#starting;
  }

  replace(changes: GatewayChanges): Promise<void> {
    const replaced = this.#replacing.then(() => this.#replace(changes));
    this.#replacing = replaced.catch(() => {});
    return replaced;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  #behind(): readonly string[] {
    return this.#service && this.#state === 'ready' ? this.#service.readiness.reasons : [];
  }

  async #start(): Promise<void> {
    try {
      const options = await this.#validate();
      this.#become('validated');
      await this.#open(options);
      await this.#listen(options);
      await this.#openAdmin(options);
      this.#become('listening');
      this.#become('ready');
    } catch (error) {
      await this.#unwind();
      this.#become('stopped');
      throw error;
    }
  }

  async check(): Promise<readonly Violation[]> {
    const { given } = this.#plan.parsed;
    const found: Violation[] = [...checkEnvironment(), ...(await violationsOf(this.#plan))];
    const wrongFiles = await this.#tls.check();
    const hosts: readonly unknown[] = Array.isArray(given.hosts) ? given.hosts : [];
    const named = hosts.filter((host) => typeof host === 'string');
    found.push(...(wrongFiles.length > 0 ? wrongFiles : uncoveredViolations(await this.#tls.uncovered(named))));
    for (const part of [given.identity, given.registry]) {
      if (typeof part?.check === 'function') found.push(...(await part.check()));
    }
    return found;
  }

  /** Collects the violations of every part, those of the service behind the door among them, then throws them together. */
  async #validate(): Promise<ResolvedGatewayOptions> {
    const { value } = this.#plan.parsed;
    const found = await this.check();
    if (found.length === 0 && value) return value;
    this.events.emit('configuration-refused', { violations: found });
    throw new InsecureConfigurationError(`gateway ${this.name}`, found);
  }

  async #open(options: ResolvedGatewayOptions): Promise<void> {
    const registry = isLoopback(options.listen.host) ? ofThisMachine(options.registry) : options.registry;
    const service = createService({
      name: this.name,
      version: '1.0.0',
      tls: options.identity,
      registry,
      client: client(),
      logger: silentLogger,
      clock: this.#clock,
    });
    this.#service = service;
    service.on('*', ({ type, at: _at, service: _service, ...fields }) => {
      if (type !== 'service-state' && type !== 'readiness') this.events.emit(type, fields as never);
    });
    this.#opened.push(this.#metrics.observe(applicationMeters));
    const context = { events: this.events, clock: this.#clock };
    const certificates = await this.#tls.open(context);
    this.#opened.push(() => certificates.close());
    this.#certificates = certificates;
    const identity = await options.identity.open({ events: unheard, clock: this.#clock });
    this.#opened.push(() => identity.close());
    this.#identity = identity;
    this.#concurrency = new ConcurrencyLimit(options.limits);
    this.#breakers = new Breakers(options.breaker, context);
    this.#opened.push(() => this.#closeGenerations());
    this.#generations.push(await this.#openGeneration(this.#plan, options));
    // After the routes: a client that is made before the start has its options checked with everything else.
    await service.start();
    this.#opened.push(() => service.stop());
  }

  async #replace(changes: GatewayChanges): Promise<void> {
    this.#requireReady();
    const plan = planOf(withChanges(this.#plan.parsed.given, changes));
    const violations = await violationsOf(plan);
    const { value } = plan.parsed;
    if (violations.length > 0 || !value) throw new InsecureConfigurationError(`gateway ${this.name}`, violations);
    const next = await this.#openGeneration(plan, value);
    try {
      this.#requireReady();
    } catch (error) {
      await next.close();
      throw error;
    }
    const before = this.#generations.at(-1);
    this.#generations.push(next);
    if (before) void this.#retire(before);
  }

  #requireReady(): void {
    if (this.#state !== 'ready') throw new UsageError(`${this.name} is ${this.#state}: only a ready gateway changes`);
  }

  async #retire(generation: Generation): Promise<void> {
    await generation.application.idle();
    const index = this.#generations.indexOf(generation);
    if (index < 0) return;
    this.#generations.splice(index, 1);
    await generation.close();
  }

  async #closeGenerations(): Promise<void> {
    await Promise.all(this.#generations.splice(0).map((generation) => generation.close()));
  }

  /** Opens what a list of routes needs. Rejects with InsecureConfigurationError, or with what a handler rejects with. */
  async #openGeneration({ table, cors, rateLimits }: Plan, options: ResolvedGatewayOptions): Promise<Generation> {
    const certificates = this.#certificates as WebTlsHandle;
    const service = this.#service as Service;
    const concurrency = this.#concurrency as ConcurrencyLimit;
    const breakers = this.#breakers as Breakers;
    const users = new UserTokens(this.#identity as TlsHandle, this.#clock, options.userClaims);
    const context = { events: this.events, clock: this.#clock };
    const uncovered = uncoveredViolations((options.hosts ?? []).filter((host) => !certificates.covers(host)));
    if (uncovered.length > 0) throw new InsecureConfigurationError(`gateway ${this.name}`, uncovered);
    const opened: (() => void | Promise<void>)[] = [];
    try {
      const handlers = await AuthHandlers.open(options.routes, context, this.#authenticators);
      opened.push(() => handlers.close());
      const onOverQuota = (limit: string) => this.#metrics.overQuota(limit);
      const rates = await rateLimits.open({ ...context, onOverQuota, local: this.#rateLimits });
      opened.push(() => rates.close());
      const upstreams = await this.#openUpstreams(options);
      if (upstreams) opened.push(() => upstreams.close());
      const app = await application({
        limits: options.limits,
        events: this.events,
        metrics: this.#metrics,
        table,
        guard: new EdgeGuard({
          limits: options.limits,
          serves: (host) => options.hosts?.includes(host) ?? certificates.covers(host),
          clientAddress: clientAddressBehind(options.trustedProxies),
        }),
        stagesFor: (route) =>
          stagesOf(
            cors.stageFor(route),
            concurrency.stage,
            rates.stageByAddress(route),
            handlers.stageFor(route),
            rates.stageByUser(route),
            breakers.stageFor(route),
          ),
        preflight: (request, methods) => {
          const route = table.find(request.headers['access-control-request-method'] ?? '', request.path);
          return cors.preflight(request, route, methods);
        },
        handlerFor: (route) => this.#handlerFor(route, options, service, users, upstreams),
        socketHandlerFor: (route) => {
          if (route.kind !== 'rpc') return undefined;
          const handler = socketHandler(route, this.#streams(route, options, service, users));
          return handler && ((exchange, socket) => this.#metrics.stream('bidi', handler(exchange, socket)));
        },
        draining: () => this.#state === 'draining',
      });
      opened.push(() => app.close());
      await app.ready();
      return { routes: options.routes, application: app, close: () => closeAll(opened) };
    } catch (error) {
      await closeAll(opened);
      throw error;
    }
  }

  #handlerFor(
    route: Route,
    options: ResolvedGatewayOptions,
    service: Service,
    users: UserTokens,
    upstreams: Upstreams | undefined,
  ): RouteHandler {
    const { limits } = options;
    if (route.kind === 'local') return localHandler(route);
    if (route.kind === 'http') {
      if (!upstreams) throw new TypeError('the services of HTTP routes were not opened');
      return proxyHandler(route, upstreams.of(route), {
        limits,
        events: this.events,
        metadata: users.metadata,
        breaker: this.#breakerOf(route),
        credentials: credentialHeadersOf(options.routes),
        cache: ProxyCache.of(route, { clock: this.#clock, userClaims: options.userClaims }),
        onLookup: (isHit) => this.#metrics.cached(route, isHit),
      });
    }
    const { kind } = route.target;
    if (kind !== 'unary') {
      const handler = streamHandler(route, this.#streams(route, options, service, users));
      return (exchange, reply, body) => this.#metrics.stream(kind, handler(exchange, reply, body));
    }
    const call = unaryHandler(route, {
      service,
      upstreamTimeoutMs: limits.upstreamTimeoutMs,
      metadata: users.metadata,
      breaker: this.#breakerOf(route),
    });
    const cache = answerCache(route, { clock: this.#clock, userClaims: options.userClaims }, textBytes);
    return async (exchange, reply, body) => {
      const key = cache?.keyOf(exchange) ?? '';
      let answer = cache?.find(key);
      if (cache) this.#metrics.cached(route, answer !== undefined);
      if (answer === undefined) {
        answer = JSON.stringify(await call(exchange, body));
        cache?.keep(key, answer);
      }
      return sendJson(exchange, reply, answer);
    };
  }

  async #openUpstreams({ routes, registry }: ResolvedGatewayOptions): Promise<Upstreams | undefined> {
    if (routes.every(({ kind }) => kind !== 'http')) return undefined;
    const tls = this.#identity as TlsHandle;
    return Upstreams.open({ name: this.name, tls, registry, events: this.events, clock: this.#clock });
  }

  #breakerOf(route: CallingRoute): Breaker {
    return (this.#breakers as Breakers).of(route);
  }

  #streams(
    route: RpcRoute,
    { limits }: ResolvedGatewayOptions,
    service: Service,
    { metadata }: UserTokens,
  ): StreamContext {
    return {
      service,
      limits,
      metadata,
      events: this.events,
      clock: this.#clock,
      leaving: this.#leaving.signal,
      breaker: this.#breakerOf(route),
    };
  }

  async #listen(options: ResolvedGatewayOptions): Promise<void> {
    const { listen, advertise, allowWildcardBind, limits } = options;
    const context = { tls: this.#certificates as WebTlsHandle, limits, events: this.events };
    const edge = edgeServer(
      context,
      (req, res) => this.#generations.at(-1)?.application.onRequest(req, res),
      (req, socket, head) => void this.#generations.at(-1)?.application.onUpgrade(req, socket, head),
    );
    this.#edge = edge;
    this.#opened.push(() => closed(edge));
    await bound(edge, listen);
    const { address, port } = edge.server.address() as { address: string; port: number };
    const advertised = advertise ?? { host: listen.host, port };
    this.#endpoints = [{ host: advertised.host, port: advertised.port === 0 ? port : advertised.port }];
    this.events.emit('listening', {
      address: `${address}:${port}`,
      ...(allowWildcardBind ? { reason: allowWildcardBind.reason } : {}),
    });
  }

  async #openAdmin({ admin }: ResolvedGatewayOptions): Promise<void> {
    if (!admin) return;
    const { host = '', port } = this.#endpoints[0] ?? {};
    const name = this.#plan.parsed.value?.hosts?.[0] ?? host;
    const server = `https://${name}${port === 443 ? '' : `:${port}`}`;
    const { events } = this;
    const document = () => openApiDocument(this.#generations.at(-1)?.routes ?? [], { title: this.name, server });
    const opened = await openAdmin(admin, { subject: this, events, pages: adminPages(document) });
    this.#opened.push(() => opened.close());
    this.#opened.push(this.#metrics.observe(opened.meters));
    const tls = this.#identity as TlsHandle;
    this.#opened.push(observeTls({ service: this.name, tls, events, clock: this.#clock, meters: opened.meters }));
    this.#adminAddress = opened.address;
  }

  async #stop(): Promise<void> {
    await this.#starting?.catch(() => {});
    if (this.#state === 'ready') {
      this.#become('draining');
      await this.#drain((this.#plan.parsed.value as ResolvedGatewayOptions).drain);
    }
    await this.#unwind();
    this.#endpoints = [];
    if (this.#state !== 'stopped') this.#become('stopped');
  }

  /**
   * First every answer says that the connection ends with it, while new ones are still taken: clients that keep connections
   * open learn of it before a request could meet a closed one. Then nothing new, and time for what is running.
   */
  async #drain({ spreadMs, graceMs }: ResolvedGatewayOptions['drain']): Promise<void> {
    const edge = this.#edge as EdgeServer;
    edge.retire();
    await delay(spreadMs);
    edge.server.close();
    const deadline = Date.now() + graceMs;
    while (this.#pending() > 0 && Date.now() < deadline) await delay(10);
    if (this.#pending() === 0) return;
    // Streams that nobody ends learn why they end.
    this.#leaving.abort();
    await delay(GOODBYE_MS);
  }

  #pending(): number {
    return this.#generations.reduce((sum, { application }) => sum + application.pending, 0);
  }

  #unwind(): Promise<void> {
    return closeAll(this.#opened);
  }

  #become(state: ServiceState): void {
    const from = this.#state;
    this.#state = state;
    this.events.emit('service-state', { from, to: state });
    if (state === 'ready' || from === 'ready') this.events.emit('readiness', this.readiness);
  }
}

/** A list of routes and what is said about them, read but not opened. */
interface Plan {
  readonly parsed: ParsedGatewayOptions;
  readonly table: RouteTable;
  readonly cors: Cors;
  readonly rateLimits: RateLimits;
}

function planOf(options: GatewayOptions): Plan {
  const parsed = parseGatewayOptions(options);
  const { routes: given, cors, rateLimit } = parsed.given;
  const routes = Array.isArray(given) ? given : [];
  return {
    parsed,
    table: routeTable(routes, 'gateway.routes'),
    cors: new Cors(cors, routes, 'gateway'),
    rateLimits: new RateLimits(rateLimit, routes, 'gateway'),
  };
}

async function violationsOf({ parsed, table, cors, rateLimits }: Plan): Promise<Violation[]> {
  const found = [...parsed.violations, ...table.violations, ...cors.violations, ...rateLimits.violations];
  found.push(...(await rateLimits.check()));
  for (const handler of distinctHandlers(table.routes.map(({ route }) => route))) {
    if (typeof handler.check === 'function') found.push(...(await handler.check()));
  }
  return found;
}

function uncoveredViolations(hosts: readonly string[]): Violation[] {
  return hosts.map((host) => violation('gateway-host-uncovered', 'gateway.hosts', `no certificate covers ${host}`));
}

/** In reverse order; empties the list. */
async function closeAll(opened: (() => void | Promise<void>)[]): Promise<void> {
  for (const close of opened.splice(0).reverse()) {
    try {
      await close();
    } catch {
      // What failed to close must not keep the rest open.
    }
  }
}

/** The service behind the door follows the same identity, and tells of it already. */
const unheard: EventSink = { emit: () => {} };

function stagesOf(...stages: readonly (Stage | undefined)[]): Stage[] {
  return stages.filter((stage) => stage !== undefined);
}

function bound({ server }: EdgeServer, { host, port }: Endpoint): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        new CallError('UNAVAILABLE', `cannot listen on ${host}:${port}: ${error.code ?? 'unknown error'}`, {
          cause: error,
        }),
      );
    });
    server.listen(port, host, resolve);
  });
}

function closed(edge: EdgeServer): Promise<void> {
  return new Promise((resolve) => {
    if (!edge.server.listening && edge.connections === 0) return resolve();
    edge.server.close(() => resolve());
    edge.destroy();
    // A server that was closed before does not tell again.
    setTimeout(resolve, 100).unref();
  });
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Whoever serves this machine alone finds services of this machine, which a registry of a network would not be believed (T38). */
function ofThisMachine(registry: Registry): Registry {
  const { kind } = registry;
  return { kind, reach: 'machine', check: () => registry.check(), open: (context) => registry.open(context) };
}
