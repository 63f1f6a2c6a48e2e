import type { EventSink } from '@sallyport/core/spi';
import type { RequestHead } from '../http/message.js';
import { type HttpTarget, type Sending, TargetFailure } from '../http/target.js';
import { Flight } from './flight.js';
import { RetryBudget } from './retry-budget.js';
import type { UpstreamPool } from './upstream-pool.js';

export interface BalancedTargetContext {
  /** Requests under way at once. */
  readonly maxRequests: number;
  readonly events: EventSink;
}

/**
 * The servers of one upstream as one. A request goes to another server where it cannot be sent, and where the first one says that it has
 * not acted upon it; where the connection broke only if it does no harm to ask twice.
 */
export class BalancedTarget implements Pick<HttpTarget, 'send'> {
  readonly #name: string;
  readonly #pool: UpstreamPool;
  readonly #maxRequests: number;
  readonly #events: EventSink;
  readonly #budget = new RetryBudget();
  #running = 0;

  constructor(name: string, pool: UpstreamPool, { maxRequests, events }: BalancedTargetContext) {
    this.#name = name;
    this.#pool = pool;
    this.#maxRequests = maxRequests;
    this.#events = events;
  }

  async send(head: RequestHead, signal: AbortSignal): Promise<Sending> {
    if (this.#running >= this.#maxRequests) throw this.#failed(`${this.#running} requests are under way`);
    this.#running++;
    this.#budget.earn();
    return Flight.begin(head, {
      pool: this.#pool,
      budget: this.#budget,
      signal,
      onFailure: ({ message }) => this.#failed(message),
      onOver: () => this.#running--,
    });
  }

  #failed(detail: string): TargetFailure {
    this.#events.emit('upstream-unreachable', { upstream: this.#name, detail });
    return new TargetFailure('unreachable', detail);
  }
}
