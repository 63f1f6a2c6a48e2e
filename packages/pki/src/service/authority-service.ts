import {
  consoleLogger,
  type Endpoint,
  type EventListener,
  type EventType,
  InsecureConfigurationError,
  type Readiness,
  type ServiceState,
  UsageError,
  type Violation,
} from '@sallyport/core';
import {
  Authorizer,
  type Clock,
  checkEnvironment,
  EventBus,
  every,
  parseOptions,
  systemClock,
  violation,
} from '@sallyport/core/spi';
import type { z } from 'zod';
import { PkiError } from '../errors.js';
import { Door } from './door.js';
import { type AuthorityMaterial, type Issuers, loadIssuers } from './issuers.js';
import {
  type AuthorityServiceOptions,
  materialSchema,
  type ParsedAuthorityOptions,
  parseAuthorityOptions,
  type ResolvedAuthorityOptions,
} from './options.js';
import {
  type JoinToken,
  type JoinTokenRequest,
  joinTokenRequestSchema,
  type RevokeRequest,
  revokeRequestSchema,
} from './protocol.js';
import { Reception, type Serve } from './reception.js';
import { Refusal } from './refusal.js';
import { Registrar } from './registrar.js';
import { Store } from './store.js';
import { TrustPublisher } from './trust-publisher.js';

/** An authority that runs: enrols, renews, revokes. */
export interface AuthorityService {
  readonly state: ServiceState;
  /** Whether it can issue and its lists are what they should be, and why not. */
  readonly readiness: Readiness;
  /** Undefined before `start` and after `stop`. */
  readonly endpoints: { readonly enrolment: Endpoint; readonly address: Endpoint } | undefined;
  /** Everything for which `start` would refuse; opens nothing. */
  check(): Promise<readonly Violation[]>;
  /** All or nothing. Rejects with InsecureConfigurationError (every violation at once), or with why it cannot listen. */
  start(): Promise<void>;
  /** Bounded; connections end. Twice, or before `start`, is harmless. */
  stop(): Promise<void>;
  /** Listens to one type of event, or to all (`*`). Returns the function that unsubscribes. */
  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  /**
   * As over the wire, for the program that runs the authority; the first token has to come from somewhere. Rejects with a
   * `PkiError`: `request-refused`, `store-failed`.
   */
  createJoinToken(request: JoinTokenRequest): Promise<JoinToken>;
  /**
   * As over the wire. Resolves to the serials when the lists that name them are out. Rejects with a `PkiError`:
   * `request-refused`; `signer-failed` or `store-failed` when not all was done, which may be repeated.
   */
  revoke(request: RevokeRequest): Promise<readonly string[]>;
  /**
   * Goes on with other material, for a change of roots or issuers and for new lists of the roots. Rejects with
   * InsecureConfigurationError, and goes on with what it has, when the material is not in order or leaves live below something
   * that it no longer holds.
   */
  replaceAuthority(material: AuthorityMaterial): Promise<void>;
}

/** Options that are not in order are not thrown here but by `start()`, all of them at once. */
export function createAuthorityService(options: AuthorityServiceOptions): AuthorityService {
  return new RunningAuthority(parseAuthorityOptions(options));
}

const NAME = 'authority';
const OPERATOR = 'operator';
const MAX_JOURNAL_BYTES = 16 * 1024 * 1024;
const TICK_MS = 1000;

interface Running {
  readonly store: Store;
  readonly publisher: TrustPublisher;
  readonly registrar: Registrar;
  readonly reception: Reception;
}

class RunningAuthority implements AuthorityService {
  readonly #parsed: ParsedAuthorityOptions;
  readonly #clock: Clock;
  readonly #events: EventBus;
  /** What has been opened, to be closed in reverse. */
  readonly #opened: (() => void | Promise<void>)[] = [];
  #state: ServiceState = 'created';
  #endpoints: AuthorityService['endpoints'];
  #running: Running | undefined;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  #told: string | undefined;

  constructor(parsed: ParsedAuthorityOptions) {
    this.#parsed = parsed;
    this.#clock = parsed.value?.clock ?? systemClock;
    this.#events = new EventBus(NAME, this.#clock, parsed.logger ?? consoleLogger());
  }

  get state(): ServiceState {
    return this.#state;
  }

  get readiness(): Readiness {
    const reasons: string[] = [];
    if (this.#state !== 'ready') reasons.push(`the authority is ${this.#state}`);
    const publisher = this.#running?.publisher;
    if (publisher) {
      const now = this.#clock.now();
      if (publisher.problem !== undefined) reasons.push(`it cannot publish: ${publisher.problem}`);
      reasons.push(...publisher.flawsAt(now));
      if (publisher.issuers.current.fields.notAfter <= now) reasons.push('its issuer has expired');
      if (publisher.issuers.rootListsEnd <= now) reasons.push('a list of its roots is past its time');
    }
    return { ready: reasons.length === 0, reasons };
  }

  get endpoints(): AuthorityService['endpoints'] {
    return this.#endpoints;
  }

  on<T extends EventType>(type: T, listener: EventListener<T>): () => void;
  on(type: '*', listener: EventListener): () => void;
  on(type: never, listener: never): () => void {
    return this.#events.on(type, listener);
  }

  async check(): Promise<readonly Violation[]> {
    return (await this.#validate()).violations;
  }

  start(): Promise<void> {
    if (this.#starting || this.#stopping) {
      return Promise.reject(new UsageError('the authority was started or stopped before; make a new one'));
    }
    this.#starting = this.#start();
    return this.#starting;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async createJoinToken(request: JoinTokenRequest): Promise<JoinToken> {
    const { registrar } = this.#require();
    return await asOperator(joinTokenRequestSchema, request, (wanted) => registrar.createJoinToken(wanted, OPERATOR));
  }

  async revoke(request: RevokeRequest): Promise<readonly string[]> {
    const { registrar } = this.#require();
    return await asOperator(revokeRequestSchema, request, (wanted) => registrar.revoke(wanted, OPERATOR));
  }

  async replaceAuthority(material: AuthorityMaterial): Promise<void> {
    const { publisher, store } = this.#require();
    const parsed = parseOptions(materialSchema, material, 'authorityService.authority');
    if (!parsed.value) throw new InsecureConfigurationError('the authority', parsed.violations);
    const { issuers, violations } = await loadIssuers(parsed.value, this.#clock.now());
    const early = issuers ? droppedEarly(issuers, store, this.#clock.now()) : [];
    if (!issuers || early.length > 0) throw new InsecureConfigurationError('the authority', [...violations, ...early]);
    await publisher.replaceIssuers(issuers);
    await store.audit({
      what: 'authority-replaced',
      issuers: issuers.all.map(({ certificate }) => certificate.serialNumber),
      roots: issuers.roots.map(({ serialNumber }) => serialNumber),
    });
  }

  async #start(): Promise<void> {
    try {
      const { violations, issuers } = await this.#validate();
      const options = this.#parsed.value;
      if (violations.length > 0 || !options || !issuers) throw this.#insecure(violations);
      this.#become('validated');
      await this.#open(options, issuers);
      this.#become('ready');
      this.#tellReadiness();
    } catch (error) {
      await this.#unwind();
      this.#become('stopped');
      throw error;
    }
  }

  async #validate(): Promise<{ readonly violations: readonly Violation[]; readonly issuers: Issuers | undefined }> {
    const { value, violations, rules } = this.#parsed;
    const found = [...checkEnvironment(), ...violations, ...(await rules.check())];
    if (!value) return { violations: found, issuers: undefined };
    const loaded = await loadIssuers(value.authority, this.#clock.now());
    return { violations: [...found, ...loaded.violations], issuers: loaded.issuers };
  }

  async #open(options: ResolvedAuthorityOptions, issuers: Issuers): Promise<void> {
    const { leafTtlMs, crl, limits } = options;
    const clock = this.#clock;
    const events = this.#events;
    const store = await this.#openStore(options.store);
    const early = droppedEarly(issuers, store, clock.now());
    if (early.length > 0) throw this.#insecure(early);
    const publisher = await TrustPublisher.start({ store, issuers, leafTtlMs, crl, clock, events });
    this.#opened.push(() => publisher.close());
    const rules = await this.#parsed.rules.open({ events, clock });
    this.#opened.push(() => rules.close());
    const authorizer = new Authorizer(rules.current());
    rules.onChange((changed) => authorizer.replace(changed));
    const registrar = new Registrar({ store, publisher, leafTtlMs, limits, clock, events });
    const { host } = options.listen;
    const reception = new Reception({ store, publisher, registrar, authorizer, clock, events, host });
    this.#opened.push(() => reception.close());
    this.#running = { store, publisher, registrar, reception };
    const renewalPort = await this.#openDoor(options, 'address', reception.serveMember);
    reception.renewalPort = renewalPort;
    const enrolmentPort = await this.#openDoor(options, 'enrolment', reception.serveStranger);
    this.#endpoints = {
      enrolment: { host: options.listen.enrolment.host, port: enrolmentPort },
      address: { host: host ?? options.listen.address.host, port: renewalPort },
    };
    const timer = every(clock, TICK_MS, () => this.#tellReadiness());
    this.#opened.push(() => timer.cancel());
  }

  async #openStore(directory: string): Promise<Store> {
    try {
      const store = await Store.open({ directory, clock: this.#clock, maxJournalBytes: MAX_JOURNAL_BYTES });
      this.#opened.push(() => store.close());
      return store;
    } catch (error) {
      if (!(error instanceof PkiError)) throw error;
      throw this.#insecure([violation('authority-store-unusable', 'authorityService.store', error.message)]);
    }
  }

  async #openDoor(
    { listen, limits }: ResolvedAuthorityOptions,
    which: 'enrolment' | 'address',
    serve: Serve,
  ): Promise<number> {
    const { publisher } = this.#require();
    const tls = publisher.open();
    this.#opened.push(() => tls.close());
    const mutual = which === 'address';
    const door = new Door({
      mutual,
      address: listen[which],
      limits,
      tls,
      clock: this.#clock,
      events: this.#events,
      serve,
      wildcardReason: listen.allowWildcardBind?.reason,
    });
    this.#opened.push(() => door.close());
    return await door.open();
  }

  async #stop(): Promise<void> {
    // A start under way is not interrupted: it ends by itself, one way or the other.
    await this.#starting?.catch(ignore);
    if (this.#state === 'stopped') return;
    if (this.#state === 'ready') this.#become('draining');
    // Those who follow the updates would hold the doors open.
    this.#running?.reception.close();
    await this.#unwind();
    this.#become('stopped');
    this.#tellReadiness();
  }

  async #unwind(): Promise<void> {
    this.#running = undefined;
    this.#endpoints = undefined;
    for (let close = this.#opened.pop(); close; close = this.#opened.pop()) {
      try {
        await close();
      } catch {
        // What cannot be closed must not keep the rest open.
      }
    }
  }

  #require(): Running {
    if (!this.#running) throw new UsageError(`the authority is ${this.#state}; call start() first`);
    return this.#running;
  }

  #insecure(violations: readonly Violation[]): InsecureConfigurationError {
    this.#events.emit('configuration-refused', { violations });
    return new InsecureConfigurationError('the authority', violations);
  }

  #become(state: ServiceState): void {
    if (this.#state === state) return;
    const from = this.#state;
    this.#state = state;
    this.#events.emit('service-state', { from, to: state });
  }

  /** Raises `readiness` when the answer has changed. */
  #tellReadiness(): void {
    const { ready, reasons } = this.readiness;
    const answer = reasons.join(';');
    if (answer === this.#told) return;
    this.#told = answer;
    this.#events.emit('readiness', { ready, reasons });
  }
}

/**
 * What would strand leaves that live: the issuer that signed them must go on with its lists. Its root stays with it, because
 * an issuer that does not chain to the roots is refused.
 */
function droppedEarly(next: Issuers, store: Store, now: number): Violation[] {
  return [...store.ledger.livingUntil(now)].flatMap(([issuer, until]) => {
    if (next.all.some(({ id }) => id === issuer)) return [];
    const end = new Date(until).toISOString();
    const problem = `leaves of the issuer with the fingerprint ${issuer.slice(0, 16)}… live until ${end}`;
    return [violation('authority-dropped-early', 'authorityService.authority.retiring', problem)];
  });
}

/** What is refused over the wire is refused to the program itself, as an error of this package. */
async function asOperator<T, R>(schema: z.ZodType<T>, request: unknown, act: (wanted: T) => Promise<R>): Promise<R> {
  const parsed = schema.safeParse(request);
  if (!parsed.success) throw new PkiError('request-refused', 'the request has not the fields that it should have');
  try {
    return await act(parsed.data);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new PkiError('request-refused', error.message, { cause: error });
  }
}

function ignore(): void {}
