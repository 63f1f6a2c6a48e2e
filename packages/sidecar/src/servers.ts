import { type IdentityMatcher, type InstanceRecord, selector } from '@sallyport/core';
import { type Clock, type Endpoint, readyOnly, ServerRefusedError } from '@sallyport/core/spi';

/** How long a server that could not be reached is passed over while others are there, ms. */
const PASS_OVER_MS = 1000;

/** A server of an upstream, with what is known of it. */
export interface Server {
  instance: InstanceRecord;
  /** Connections open to it. */
  pending: number;
  /** Ms since the epoch while it could not be reached lately; 0 otherwise. */
  passedOverUntil: number;
}

/** Where the servers of an upstream are found: in the configuration or in a registry. */
export interface ServerSource {
  /** Grows with every change. */
  readonly version: number;
  instances(): readonly InstanceRecord[];
  /** Resolves when they are known; rejects with CallError when they are not by then (ms since the epoch). */
  ready(deadlineAt: number): Promise<void>;
}

export interface ReachOptions {
  /** Until the servers must be known, ms; after twice that time no other one is tried. */
  readonly connectTimeoutMs: number;
  /** Nobody waits any more. */
  readonly giveUp: AbortSignal;
}

/** No server of an upstream could be reached. The message names addresses: it is for events. */
export class NoServerError extends Error {
  override readonly name = 'NoServerError';
  /** There were some, and each was somebody else. */
  readonly isIdentity: boolean;

  constructor(failures: readonly Error[]) {
    super(failures.map(({ message }) => message).join('; ') || 'no server of it is known');
    this.isIdentity = failures.length > 0 && failures.every((failure) => failure instanceof ServerRefusedError);
  }
}

/** Chooses among the servers of one upstream: the less busy of two, and none that could not be reached a moment ago. */
export class Servers {
  readonly #source: ServerSource;
  readonly #clock: Clock;
  readonly #selector = selector.leastPending();
  #known = new Map<string, Server>();
  #seenVersion = -1;

  constructor(source: ServerSource, clock: Clock) {
    this.#source = source;
    this.#clock = clock;
  }

  /**
   * Connects to one of them by `connect`, and to another one when that fails. Rejects with CallError when they are not known in time,
   * and with NoServerError when none is left.
   */
  async reach<T>(connect: (server: Server) => Promise<T>, { connectTimeoutMs, giveUp }: ReachOptions): Promise<T> {
    const startedAt = Date.now();
    await this.#source.ready(startedAt + connectTimeoutMs);
    const tried = new Set<string>();
    const failures: Error[] = [];
    for (;;) {
      const isLate = Date.now() - startedAt > 2 * connectTimeoutMs;
      const server = isLate ? undefined : this.pick(tried);
      if (!server) throw new NoServerError(failures);
      try {
        const connected = await connect(server);
        server.passedOverUntil = 0;
        return connected;
      } catch (error) {
        if (giveUp.aborted) throw error;
        this.failed(server);
        tried.add(server.instance.id);
        failures.push(error instanceof Error ? error : new Error('connecting failed'));
      }
    }
  }

  /** One that has not been tried yet; undefined when there is none left. */
  pick(tried: ReadonlySet<string>): Server | undefined {
    const left = this.#current().filter(({ instance }) => !tried.has(instance.id));
    const now = this.#clock.now();
    const healthy = left.filter(({ passedOverUntil }) => passedOverUntil <= now);
    return this.#selector.pick(healthy.length > 0 ? healthy : left);
  }

  /** Whether it still takes connections, as far as is known. */
  knows(server: Server): boolean {
    return this.#current().includes(server);
  }

  failed(server: Server): void {
    server.passedOverUntil = this.#clock.now() + PASS_OVER_MS;
  }

  #current(): readonly Server[] {
    const { version } = this.#source;
    if (version !== this.#seenVersion) {
      this.#seenVersion = version;
      const before = this.#known;
      this.#known = new Map();
      for (const instance of readyOnly(this.#source.instances())) {
        // The object stays the same as long as the server is known at its place: open connections count down on it.
        const known = before.get(instance.id);
        const server = known && isSamePlace(known.instance, instance) ? known : newServer(instance);
        server.instance = instance;
        this.#known.set(instance.id, server);
      }
    }
    return [...this.#known.values()];
  }
}

function newServer(instance: InstanceRecord): Server {
  return { instance, pending: 0, passedOverUntil: 0 };
}

function isSamePlace(a: InstanceRecord, b: InstanceRecord): boolean {
  const [before, now] = [a.endpoints[0], b.endpoints[0]];
  return before?.host === now?.host && before?.port === now?.port;
}

/** The addresses of the configuration, as a registry would tell of them. */
export function fixedServers(
  name: string,
  addresses: readonly Endpoint[],
  { description }: IdentityMatcher,
): ServerSource {
  const instances = addresses.map((endpoint, index): InstanceRecord => {
    return {
      id: `${name}-${index}`,
      service: name,
      version: '0.0.0',
      endpoints: [endpoint],
      identity: description,
      metadata: {},
      weight: 100,
      zone: '',
      state: 'ready',
      contracts: [],
    };
  });
  return { version: 0, instances: () => instances, ready: () => Promise.resolve() };
}
