import type { OutgoingHttpHeaders } from 'node:http';
import { MalformedRequest } from '@sallyport/core/spi';

/** What a client is told when its request fails (RFC 9457). Nothing internal: causes go to the events. */
export interface Problem {
  /** HTTP status. */
  readonly status: number;
  /** Stable name of the kind of failure: the last part of the `type` URI, e.g. `scope-missing`. */
  readonly code: string;
  readonly title: string;
  /** A sentence for the developer of the client. Holds nothing that the client did not send itself. */
  readonly detail?: string;
  /** Which fields are wrong, and why. */
  readonly errors?: readonly { readonly field: string; readonly description: string }[];
  /** `WWW-Authenticate`, `Allow`, `Retry-After`. */
  readonly headers?: OutgoingHttpHeaders;
}

/** Ends a request with a problem. Thrown anywhere below the edge; whatever else is thrown becomes a 500 without detail. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly problem: Problem;
  /** Why, for the events; the client never sees it. */
  readonly reason: string | undefined;

  constructor(problem: Problem, { reason, ...options }: ErrorOptions & { readonly reason?: string } = {}) {
    super(problem.detail ?? problem.title, options);
    this.problem = problem;
    this.reason = reason;
  }
}

const TYPE_BASE = 'https://sallyport.dev/problems/';

/** The body of the answer, as `application/problem+json`. `instance` is the correlation id of the request. */
export function problemBody({ status, code, title, detail, errors }: Problem, instance: string): string {
  return JSON.stringify({
    type: TYPE_BASE + code,
    title,
    status,
    ...(detail === undefined ? {} : { detail }),
    ...(errors === undefined ? {} : { errors }),
    instance: `urn:request:${instance}`,
  });
}

/** The gateway's own time for a request is over, whatever it was waiting for. */
export function timedOut(cause: ProblemError): ProblemError {
  const problem = { status: 504, code: 'timeout', title: 'The request took too long' };
  return new ProblemError(problem, {
    cause,
    reason: `the time of the request was over: ${cause.reason ?? cause.message}`,
  });
}

export function badRequest(code: string, detail: string): ProblemError {
  return new ProblemError({ status: 400, code, title: 'The request is malformed', detail });
}

/** Reads a part of a request; what has more than one reading is a 400. */
export function readOrRefuse<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof MalformedRequest ? badRequest(error.code, error.message) : error;
  }
}
