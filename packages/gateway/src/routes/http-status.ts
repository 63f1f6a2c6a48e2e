import { badRequestOf, CallError, type StatusName } from '@sallyport/core';
import { type Problem, ProblemError } from '../problem.js';

interface Answer {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  /** The service chose the sentence for its caller, who asked for the client: it is passed on. */
  readonly tells?: true;
}

/** As google.rpc.Code maps to HTTP, except where that would blame the client for what happens behind the gateway. */
const answers: Readonly<Record<StatusName, Answer>> = {
  OK: { status: 500, code: 'internal', title: 'The request failed' },
  CANCELLED: { status: 499, code: 'cancelled', title: 'The request was cancelled' },
  UNKNOWN: { status: 500, code: 'internal', title: 'The request failed' },
  INVALID_ARGUMENT: { status: 400, code: 'invalid-argument', title: 'The request is not valid', tells: true },
  DEADLINE_EXCEEDED: { status: 504, code: 'upstream-timeout', title: 'The service took too long' },
  NOT_FOUND: { status: 404, code: 'not-found', title: 'There is no such thing', tells: true },
  ALREADY_EXISTS: { status: 409, code: 'already-exists', title: 'It exists already', tells: true },
  PERMISSION_DENIED: { status: 403, code: 'forbidden', title: 'This is not permitted' },
  RESOURCE_EXHAUSTED: { status: 429, code: 'resource-exhausted', title: 'There was too much of it' },
  FAILED_PRECONDITION: { status: 400, code: 'failed-precondition', title: 'This is not possible now', tells: true },
  ABORTED: { status: 409, code: 'aborted', title: 'Another request came in between', tells: true },
  OUT_OF_RANGE: { status: 400, code: 'out-of-range', title: 'This is out of range', tells: true },
  UNIMPLEMENTED: { status: 501, code: 'not-implemented', title: 'The service does not offer this' },
  INTERNAL: { status: 500, code: 'internal', title: 'The request failed' },
  UNAVAILABLE: { status: 503, code: 'upstream-unavailable', title: 'The service is not available' },
  DATA_LOSS: { status: 500, code: 'internal', title: 'The request failed' },
  // The service did not accept the gateway's word for the user: nothing that the client could mend.
  UNAUTHENTICATED: { status: 502, code: 'upstream-refused', title: 'The service refused the gateway' },
};

const IMPOSTOR: Answer = { status: 502, code: 'upstream-refused', title: 'The service could not be verified' };

/** What a client is told of a call that failed. Causes, addresses and identities stay behind in `reason`, for the events. */
export function problemOf(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error;
  if (!(error instanceof CallError)) {
    const problem = { status: 500, code: 'internal', title: 'The request failed' };
    return new ProblemError(problem, { cause: error, reason: error instanceof Error ? error.name : typeof error });
  }
  const answer = isImpostor(error) ? IMPOSTOR : answers[error.status];
  const { status, code, title } = answer;
  const errors = answer.tells ? badRequestOf(error.details) : [];
  const problem: Problem = {
    status,
    code,
    title,
    ...(answer.tells && error.message !== '' ? { detail: error.message } : {}),
    ...(errors.length > 0 ? { errors } : {}),
  };
  return new ProblemError(problem, { cause: error, reason: `${error.status}: ${error.message}` });
}

/** Somebody answered, and it was not the service: told apart from nobody answering. */
function isImpostor(error: CallError): boolean {
  for (let cause: unknown = error.received ? undefined : error; cause instanceof Error; cause = cause.cause) {
    if (cause.name === 'ServerRefusedError') return true;
  }
  return false;
}
