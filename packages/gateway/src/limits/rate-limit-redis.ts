import {
  Backoff,
  InsecureConfigurationError,
  loadServerTrust,
  redactSecrets,
  type ServerTrust,
  type Violation,
} from '@sallyport/core/spi';
import { Redis } from 'ioredis';
import {
  type Consumption,
  type OpenRateLimitStore,
  type RateLimitStore,
  type RateLimitStoreContext,
  RateLimitStoreError,
} from './rate-limit-store.js';
import { parseRedisOptions, type RedisOptions, type ResolvedRedis } from './redis-options.js';

/**
 * Counts of all gateways together, in Redis 6 or later, over TLS 1.3. The user needs `+eval +incr +pttl +pexpire` on
 * `~sallyport:rate:*` and nothing else. Keys are hashes: nobody learns from them who has called.
 *
 * @example redis({ url: 'rediss://redis.internal:6379', ca: '/etc/redis/ca.pem', password: secret.file('/run/secrets/redis') })
 */
export function redis(options: RedisOptions): RateLimitStore {
  return new RedisStore(options);
}

class RedisStore implements RateLimitStore {
  readonly kind = 'redis';
  readonly #options: ResolvedRedis | undefined;
  readonly #violations: readonly Violation[];

  constructor(options: unknown) {
    const { value, violations } = parseRedisOptions(options);
    this.#options = value;
    this.#violations = violations;
  }

  async check(): Promise<readonly Violation[]> {
    if (!this.#options) return this.#violations;
    const { ca, password } = this.#options;
    const { violations } = await loadServerTrust(ca, 'redis.ca');
    return [...violations, ...(await password.check('redis.password'))];
  }

  async open(context: RateLimitStoreContext): Promise<OpenRateLimitStore> {
    if (!this.#options) throw new InsecureConfigurationError('redis', this.#violations);
    const { trust, violations } = await loadServerTrust(this.#options.ca, 'redis.ca');
    if (!trust) throw new InsecureConfigurationError('redis', violations);
    const store = new OpenRedisStore(this.#options, trust, context);
    await store.follow();
    return store;
  }
}

/** One script, so that no key is left without an end when the gateway dies in between. */
const COUNT = `
local used = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  left = tonumber(ARGV[1])
end
return { used, left }`;

/**
 * One connection at a time. A store that does not answer in time is down until a new connection stands: of the requests that
 * come meanwhile none waits.
 */
class OpenRedisStore implements OpenRateLimitStore {
  readonly #options: ResolvedRedis;
  readonly #trust: ServerTrust;
  readonly #context: RateLimitStoreContext;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  #client: Redis | undefined;
  #state: 'unknown' | 'up' | 'down' = 'unknown';

  constructor(options: ResolvedRedis, trust: ServerTrust, context: RateLimitStoreContext) {
    this.#options = options;
    this.#trust = trust;
    this.#context = context;
    this.#backoff = new Backoff({ clock: context.clock });
  }

  /** Resolves after the first attempt; whatever becomes of it, the next ones follow. */
  async follow(): Promise<void> {
    await this.#attempt();
    void this.#keepTrying();
  }

  async count(limit: string, key: string, windowMs: number): Promise<Consumption> {
    const client = this.#client;
    if (!client) throw new RateLimitStoreError('Redis is down');
    try {
      const [used, resetMs] = (await client.eval(
        COUNT,
        1,
        `${this.#options.prefix}${limit}:${key}`,
        String(windowMs),
      )) as [number, number];
      this.#backoff.reset();
      return { used, resetMs };
    } catch (error) {
      this.#drop(client, detailOf(error));
      throw new RateLimitStoreError(detailOf(error));
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#client?.disconnect();
    this.#client = undefined;
  }

  async #keepTrying(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      if (this.#client) await ended(this.#client);
      await this.#backoff.wait(signal);
      if (!signal.aborted) await this.#attempt();
    }
  }

  async #attempt(): Promise<void> {
    let client: Redis | undefined;
    let reason: unknown;
    try {
      client = this.#connection(await this.#options.password.read());
      // What `connect` rejects with says only that there is no connection.
      client.once('error', (error) => {
        reason = error;
      });
      await client.connect();
      if (this.#closing.signal.aborted) return client.disconnect();
      this.#client = client;
      this.#become('up', 'connected');
      void ended(client).then(() => this.#drop(client as Redis, 'the connection was lost'));
    } catch (error) {
      client?.disconnect();
      this.#become('down', detailOf(reason ?? error));
    }
  }

  #connection(password: string): Redis {
    const { url, username, timeoutMs, connectTimeoutMs } = this.#options;
    const { hostname, port, pathname } = new URL(url);
    const host = hostname.replace(/^\[|\]$/g, '');
    const client = new Redis({
      host,
      port: port === '' ? 6379 : Number(port),
      db: pathname.length > 1 ? Number(pathname.slice(1)) : 0,
      tls: this.#trust.optionsFor(host),
      ...(username === undefined ? {} : { username }),
      password,
      // Reconnecting is ours, with a password that is read anew.
      lazyConnect: true,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      connectTimeout: connectTimeoutMs,
      commandTimeout: timeoutMs,
      // Nothing that a narrow access control list would have to allow.
      enableReadyCheck: false,
      disableClientInfo: true,
      protocol: 2,
    });
    client.on('error', (error) => this.#drop(client, detailOf(error)));
    return client;
  }

  #drop(client: Redis, detail: string): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    client.disconnect();
    this.#become('down', detail);
  }

  #become(state: 'up' | 'down', detail: string): void {
    if (this.#state === state || this.#closing.signal.aborted) return;
    this.#state = state;
    this.#context.events.emit('rate-limit-store-state', { store: 'redis', state, detail });
  }
}

function ended(client: Redis): Promise<void> {
  return new Promise((resolve) => {
    if (client.status === 'end') resolve();
    else client.once('end', () => resolve());
  });
}

/** The text alone: errors of ioredis carry the command that failed, and that of AUTH holds the password. */
function detailOf(error: unknown): string {
  return redactSecrets(error instanceof Error ? error.message : 'it failed').slice(0, 200);
}
