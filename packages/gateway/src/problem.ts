import type { OutgoingHttpHeaders } from 'node:http';

/** What a client is told when its request fails (RFC 9457). Nothing internal: causes go to the events. */
export interface Problem {
  /** HTTP status. */
  readonly status: number;
  /** Stable name of the kind of failure: the last part of the `type` URI, e.g. `scope-missing`. */
  readonly code: string;
  readonly title: string;
  /** A sentence for the developer of the client. Holds nothing that the client did not send itself. */
  readonly detail?: string;
  /** `WWW-Authenticate`, `Allow`, `Retry-After`. */
  readonly headers?: OutgoingHttpHeaders;
}

/** Ends a request with a problem. Thrown anywhere below the edge; whatever else is thrown becomes a 500 without detail. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError';
  readonly problem: Problem;

  constructor(problem: Problem, options?: ErrorOptions) {
    super(problem.title, options);
    this.problem = problem;
  }
}
