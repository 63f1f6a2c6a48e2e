import { InsecureConfigurationError } from '@sallyport/core';
import { Backoff, type RegistryContext, type TlsHandle } from '@sallyport/core/spi';
import { CatalogueFollower } from './catalogue-follower.js';
import { Credential } from './credential.js';
import { detailOf, isDenied, isUnavailable, problemsOf } from './failure.js';
import type { ResolvedOptions } from './options.js';
import { excessOf } from './preflight.js';
import { ConsulRequests } from './requests.js';

/**
 * What the sessions of one registry share: connections, the token, and one loop for each service that somebody watches.
 * Lives from the first session to the last.
 */
export class Connection {
  readonly options: ResolvedOptions;
  readonly context: RegistryContext;
  readonly credential: Credential;
  readonly #path: string;
  readonly #tls: TlsHandle;
  readonly #requests: ConsulRequests;
  readonly #followers = new Map<string, CatalogueFollower>();
  readonly #closing = new AbortController();
  readonly #backoff: Backoff;
  readonly #wakers = new Set<() => void>();
  #problem: string | undefined;

  /**
   * Rejects with InsecureConfigurationError for a token that can do too much, with CallError for one that Consul refuses. A
   * Consul that is out of reach is asked again and again in the background.
   */
  static async open(options: ResolvedOptions, context: RegistryContext, path: string): Promise<Connection> {
    const { events, clock } = context;
    const tls = await options.tls.open({ events, clock });
    const connection = new Connection(options, context, tls, path);
    try {
      await connection.credential.refresh();
    } catch (error) {
      if (!isUnavailable(error)) {
        connection.close();
        throw error;
      }
      connection.#report('down', detailOf(error));
      void connection.#keepTrying();
    }
    return connection;
  }

  private constructor(options: ResolvedOptions, context: RegistryContext, tls: TlsHandle, path: string) {
    this.options = options;
    this.context = context;
    this.#path = path;
    this.#tls = tls;
    this.#requests = new ConsulRequests(options, tls);
    this.#backoff = new Backoff({ clock: context.clock, ...options.retry });
    this.credential = new Credential({
      secret: options.token,
      clock: context.clock,
      refreshMs: options.tokenRefreshMs,
      examine: (token) => this.#examine(token),
      onRefused: (error) => this.#report('stale', `the new token was not taken over: ${detailOf(error)}`),
    });
    tls.onChange(() => this.#wake());
    this.credential.onChange(() => this.#wake());
  }

  /** Whether a token was accepted yet. */
  get contacted(): boolean {
    return this.credential.generation > 0;
  }

  /** Whether some watch is not up to date. */
  get stale(): boolean {
    return [...this.#followers.values()].some(({ state }) => state !== 'fresh');
  }

  /** Called when there is a new certificate or token: what failed may succeed now. Returns the function that unsubscribes. */
  onWake(listener: () => void): () => void {
    this.#wakers.add(listener);
    return () => this.#wakers.delete(listener);
  }

  /** Does it with the current token and, when Consul refuses that, once more with the new one if there is one. */
  async perform<T>(request: (requests: ConsulRequests, token: string) => Promise<T>): Promise<T> {
    try {
      return await request(this.#requests, await this.credential.token());
    } catch (error) {
      if (!isDenied(error) || !(await this.credential.refresh().catch(() => false))) throw error;
      return await request(this.#requests, await this.credential.token());
    }
  }

  /** The one loop of this service. */
  follow(service: string): CatalogueFollower {
    const known = this.#followers.get(service);
    if (known) return known;
    const follower = new CatalogueFollower(service, this, () => {
      if (this.#followers.get(service) === follower) this.#followers.delete(service);
    });
    this.#followers.set(service, follower);
    return follower;
  }

  close(): void {
    this.#closing.abort();
    for (const follower of this.#followers.values()) follower.close();
    this.credential.close();
    this.#requests.close();
    this.#tls.close();
  }

  async #keepTrying(): Promise<void> {
    const { signal } = this.#closing;
    for (;;) {
      await this.#backoff.wait(signal);
      if (signal.aborted) return;
      try {
        await this.credential.token();
        this.#report('fresh', 'Consul answered');
        return;
      } catch (error) {
        this.#report('down', detailOf(error));
      }
    }
  }

  async #examine(token: string): Promise<void> {
    const found = await excessOf(this.#requests, token, `${this.#path}.token`);
    const { allowManagementToken: excuse } = this.options;
    if (found.length === 0) return;
    if (!excuse || !found.every(({ id }) => id === 'registry-credential-too-powerful')) {
      throw new InsecureConfigurationError('the Consul registry', found);
    }
    this.context.events.emit('registry-credential-too-powerful', {
      registry: 'consul',
      credential: this.options.token.describe(),
      detail: problemsOf(found),
      reason: excuse.reason,
    });
  }

  #report(state: 'fresh' | 'stale' | 'down', detail: string): void {
    const report = `${state} ${detail}`;
    if (this.#problem === report) return;
    this.#problem = report;
    const { events, service: target } = this.context;
    events.emit('registry-state', { registry: 'consul', target, state, detail });
  }

  #wake(): void {
    this.#backoff.wake();
    for (const follower of this.#followers.values()) follower.wake();
    for (const listener of this.#wakers) listener();
  }
}
