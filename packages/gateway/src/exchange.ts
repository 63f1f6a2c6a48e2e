import type { OutgoingHttpHeaders } from 'node:http';
import type { Cancellation } from '@sallyport/core';
import type { Principal } from './auth/handler.js';
import type { EdgeRequest } from './edge-request.js';
import type { Route } from './routes/route.js';

/** One request on its way through the gateway, with what has been found out about it so far. */
export interface Exchange {
  readonly request: EdgeRequest;
  readonly route: Route;
  /** Proven by the route's handler; undefined on public routes. */
  principal: Principal | undefined;
  /** Stand on every answer, problems among them: `Vary`, `Access-Control-Allow-Origin`, `RateLimit`. Lower-case names. */
  readonly answerHeaders: OutgoingHttpHeaders;
  /** End of its time as a whole, ms since the epoch. Streams that have begun are exempt. */
  readonly deadlineAt: number;
  /** Aborted when `request.signal` is; cheaper, and what a call needs of it. */
  readonly cancellation: Cancellation;
  /** Called once when the request is over, however it ends; at once when it is over already. */
  onEnd(listener: () => void): void;
  /** A stream begins, in either direction: from here on its own limits hold in place of the request's time. */
  begin(): void;
}

/**
 * One thing that is done for every request of a route before its body is read. Throws ProblemError to end the request. Runs
 * in the order of the list that the gateway makes: cross-origin policy, limits by address, authentication, scopes, limits
 * by user.
 */
export type Stage = (exchange: Exchange) => Promise<void> | void;

/** Makes the stages of a route once; undefined where the route has no need of it. */
export interface StageFactory {
  stageFor(route: Route): Stage | undefined;
}
