import type { Exchange, Stage } from '../exchange.js';
import { ProblemError } from '../problem.js';
import { AddressCount } from './address-count.js';

export interface ConcurrencyLimits {
  readonly maxConcurrentRequests: number;
  readonly maxRequestsPerAddress: number;
  readonly maxQueuedRequests: number;
}

/**
 * Requests that are served at once, in all. The next ones wait for their turn in the order they came; when too many wait, 503
 * tells the client to come back, which is better for everybody than to wait for ever. No address gets all the places, of either kind.
 */
export class ConcurrencyLimit {
  readonly #limits: ConcurrencyLimits;
  readonly #waiting = new Set<() => void>();
  readonly #perAddress: AddressCount;
  #running = 0;

  constructor(limits: ConcurrencyLimits) {
    this.#limits = limits;
    this.#perAddress = new AddressCount(limits.maxRequestsPerAddress);
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Waits for a place, and gives it back when the request is over. Throws ProblemError 429, or 503 when too many wait. */
  readonly stage: Stage = (exchange) => {
    const leave = this.#perAddress.enter(exchange.request.remoteAddress);
    if (!leave) throw tooManyOfOne(this.#limits.maxRequestsPerAddress);
    exchange.onEnd(leave);
    if (this.#running < this.#limits.maxConcurrentRequests) {
      this.#running++;
      exchange.onEnd(this.#leave);
      return undefined;
    }
    if (this.#waiting.size >= this.#limits.maxQueuedRequests) throw overloaded();
    return this.#turn(exchange);
  };

  #turn(exchange: Exchange): Promise<void> {
    const { signal } = exchange.request;
    return new Promise((resolve, reject) => {
      const turn = () => {
        this.#waiting.delete(turn);
        signal.removeEventListener('abort', gone);
        exchange.onEnd(this.#leave);
        resolve();
      };
      const gone = () => {
        this.#waiting.delete(turn);
        reject(new ProblemError({ status: 499, code: 'cancelled', title: 'The request was cancelled' }));
      };
      if (signal.aborted) return gone();
      this.#waiting.add(turn);
      signal.addEventListener('abort', gone, { once: true });
    });
  }

  /** The place goes to whoever waits longest. */
  readonly #leave = (): void => {
    const [next] = this.#waiting;
    if (next) next();
    else this.#running--;
  };
}

function tooManyOfOne(max: number): ProblemError {
  const problem = {
    status: 429,
    code: 'too-many-requests',
    title: 'Too many requests of this address are under way',
    headers: { 'retry-after': '1' },
  };
  return new ProblemError(problem, { reason: `${max} requests of the address are under way` });
}

function overloaded(): ProblemError {
  const problem = {
    status: 503,
    code: 'overloaded',
    title: 'There are too many requests now',
    headers: { 'retry-after': '1' },
  };
  return new ProblemError(problem, { reason: 'the queue is full' });
}
