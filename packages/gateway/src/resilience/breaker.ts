import { CallError } from '@sallyport/core';
import { type Clock, durationMs, type EventSink, limit } from '@sallyport/core/spi';
import { z } from 'zod';
import type { Stage } from '../exchange.js';
import { ProblemError } from '../problem.js';
import { problemOf } from '../routes/http-status.js';
import type { Route } from '../routes/route.js';

/** When a service gets no calls for a while, so that it can recover and nobody waits for it in vain. */
export interface BreakerOptions {
  /**
   * So many calls within 10 s, and at least half of all, must have found no service. Those that took too long count where nobody got
   * an answer. Default 5.
   */
  readonly failures?: number;
  /** How long it is left alone then, ms; after that one call in so much time finds out whether it is back. Default 5,000. */
  readonly openMs?: number;
}

export type ResolvedBreakerOptions = Required<BreakerOptions>;

export const breakerSchema = z.strictObject({
  failures: limit({ max: 1_000_000 }).default(5),
  openMs: durationMs({ min: 10, max: 600_000 }).default(5000),
});

/** Two of them are looked at together. */
const WINDOW_MS = 5000;

export interface BreakerContext {
  readonly clock: Clock;
  readonly events: EventSink;
}

export type CallingRoute = Exclude<Route, { kind: 'local' }>;

/** One breaker for each service, by its name in the registry or its address. */
export class Breakers {
  readonly #options: ResolvedBreakerOptions;
  readonly #context: BreakerContext;
  readonly #breakers = new Map<string, Breaker>();

  constructor(options: ResolvedBreakerOptions, context: BreakerContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Of the service that the route calls, as the identity that the route expects there. */
  of(route: CallingRoute): Breaker {
    const upstream = upstreamOf(route);
    const known = this.#breakers.get(upstream);
    if (known) return known;
    const breaker = new Breaker(upstream, this.#options, this.#context);
    this.#breakers.set(upstream, breaker);
    return breaker;
  }

  /** Refuses at once what would be refused later. A cache may know the answer nevertheless. */
  stageFor(route: Route): Stage | undefined {
    if (route.kind === 'local' || ('cache' in route.options && route.options.cache !== undefined)) return undefined;
    return this.of(route).check;
  }

  all(): Iterable<Breaker> {
    return this.#breakers.values();
  }
}

function upstreamOf({ kind, options }: CallingRoute): string {
  const [name, identity] =
    kind === 'rpc' ? [options.service, options.identity] : [options.upstream, options.expect?.description];
  return identity === undefined ? name : `${name} (${identity})`;
}

/** What a call has shown of the service; undefined: nothing. */
type Verdict = 'there' | Outage | undefined;
/** Nobody answers, nobody answers in time, or somebody else does. */
type Outage = 'unavailable' | 'timeout' | 'refused';

export class Breaker {
  readonly upstream: string;
  /** Calls that have found no service, since the gateway began. */
  readonly outages = new Map<Outage, number>();
  readonly #options: ResolvedBreakerOptions;
  readonly #context: BreakerContext;
  #calls = new RecentCalls();
  /** Ms since the epoch, while it is open: the next call from then on is let through. */
  #probeAt: number | undefined;
  /** Of the state: what began in another one says nothing about this one. */
  #epoch = 0;

  constructor(upstream: string, options: ResolvedBreakerOptions, context: BreakerContext) {
    this.upstream = upstream;
    this.#options = options;
    this.#context = context;
  }

  get isOpen(): boolean {
    return this.#probeAt !== undefined;
  }

  /** Throws ProblemError 503 while no call would be let through. */
  readonly check = (): void => {
    if (this.#probeAt === undefined) return;
    const leftMs = this.#probeAt - this.#context.clock.now();
    if (leftMs > 0) throw unavailable(this.upstream, leftMs);
  };

  /**
   * Makes the call, and learns from how it ends: from what `translate` makes of an error, which is what it rejects with. Rejects
   * with ProblemError 503 instead while no call is let through.
   */
  async run<T>(call: () => Promise<T>, translate: (error: unknown) => unknown = same): Promise<T> {
    const epoch = this.#enter();
    try {
      const result = await call();
      this.#learn(epoch, 'there');
      return result;
    } catch (cause) {
      const error = translate(cause);
      this.#learn(epoch, verdictOf(error));
      throw error;
    }
  }

  /** The same for a stream, of which the first message, or its end, shows that the service is there. */
  stream<T>(call: () => AsyncIterable<T>, translate: (error: unknown) => unknown = same): AsyncIterableIterator<T> {
    let messages: AsyncIterator<T> | undefined;
    const first = () =>
      this.run(() => {
        messages = call()[Symbol.asyncIterator]();
        return messages.next();
      }, translate);
    return {
      next: () => messages?.next() ?? first(),
      return: async () => (await messages?.return?.()) ?? { done: true, value: undefined },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #enter(): number {
    this.check();
    if (this.#probeAt !== undefined) this.#probeAt = this.#context.clock.now() + this.#options.openMs;
    return this.#epoch;
  }

  #learn(epoch: number, verdict: Verdict): void {
    if (verdict === undefined) return;
    const isOutage = verdict !== 'there';
    if (isOutage) this.outages.set(verdict, (this.outages.get(verdict) ?? 0) + 1);
    if (epoch !== this.#epoch) return;
    if (this.#probeAt !== undefined) {
      if (!isOutage) this.#change(undefined, 'a call found it');
      return;
    }
    const now = this.#context.clock.now();
    this.#calls.add(verdict, now);
    if (!isOutage) return;
    const { there, late, lost } = this.#calls.counts();
    // One client may know a request that takes too long: as long as others get answers, the service is there.
    const failures = there === 0 ? lost + late : lost;
    const calls = there + late + lost;
    if (failures < this.#options.failures || failures * 2 < calls) return;
    const detail = `${failures} of ${calls} calls did not find it, the last one: ${verdict}`;
    this.#change(now + this.#options.openMs, detail);
  }

  #change(probeAt: number | undefined, detail: string): void {
    this.#probeAt = probeAt;
    this.#epoch++;
    this.#calls = new RecentCalls();
    const state = probeAt === undefined ? 'closed' : 'open';
    this.#context.events.emit('breaker-state', { upstream: this.upstream, state, detail });
  }
}

function same(error: unknown): unknown {
  return error;
}

interface Counts {
  /** Answered, however. */
  there: number;
  late: number;
  /** Nobody answered, or somebody else. */
  lost: number;
}

/** Calls of the last 5 to 10 s. */
class RecentCalls {
  #since = 0;
  #now: Counts = { there: 0, late: 0, lost: 0 };
  #before: Counts = { there: 0, late: 0, lost: 0 };

  add(verdict: Exclude<Verdict, undefined>, now: number): void {
    if (now - this.#since >= WINDOW_MS) {
      this.#before = now - this.#since < 2 * WINDOW_MS ? this.#now : { there: 0, late: 0, lost: 0 };
      this.#now = { there: 0, late: 0, lost: 0 };
      this.#since = now;
    }
    this.#now[verdict === 'there' ? 'there' : verdict === 'timeout' ? 'late' : 'lost']++;
  }

  counts(): Counts {
    const [now, before] = [this.#now, this.#before];
    return { there: now.there + before.there, late: now.late + before.late, lost: now.lost + before.lost };
  }
}

/**
 * A service that refuses is there; what its caller did, or gave up, says nothing of it. Nor does a failure inside of it: it may be
 * the fault of one request, and whoever knows such a request must not be able to shut a service for everybody.
 */
function verdictOf(error: unknown): Verdict {
  if (error instanceof CallError && error.status === 'CANCELLED') return undefined;
  const { status, code } = problemOf(error).problem;
  if (code === 'upstream-unavailable') return 'unavailable';
  if (code === 'upstream-timeout') return 'timeout';
  if (code === 'upstream-malformed') return 'refused';
  // A service that sends UNAUTHENTICATED has the same code, and is there.
  if (code === 'upstream-refused') return error instanceof CallError && error.received ? 'there' : 'refused';
  if (code === 'upstream-failed') return status === 502 ? 'there' : status === 503 ? 'unavailable' : 'timeout';
  return error instanceof CallError ? 'there' : undefined;
}

function unavailable(upstream: string, leftMs: number): ProblemError {
  const problem = {
    status: 503,
    code: 'upstream-unavailable',
    title: 'The service is not available',
    headers: { 'retry-after': String(Math.ceil(leftMs / 1000)) },
  };
  return new ProblemError(problem, { reason: `${upstream} is left alone for ${leftMs} ms: calls did not find it` });
}
