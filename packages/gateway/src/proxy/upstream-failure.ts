import { CallError } from '@sallyport/core';
import { ProblemError } from '../problem.js';
import { problemOf } from '../routes/http-status.js';

/** Nobody answered, or not to the end. */
const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EPIPE',
]);

/** What a client is told of a service that could not be asked. Addresses and names stay in `reason`. */
export function upstreamFailure(error: unknown): ProblemError {
  if (error instanceof CallError || error instanceof ProblemError) return problemOf(error);
  const { code = '', message } = error as NodeJS.ErrnoException;
  const options = { cause: error, reason: `${code} ${message}`.trim() };
  if (UNREACHABLE.has(code)) {
    return new ProblemError(
      { status: 503, code: 'upstream-unavailable', title: 'The service is not available' },
      options,
    );
  }
  if (code.startsWith('HPE_')) return malformedThere(options);
  return new ProblemError(
    { status: 502, code: 'upstream-refused', title: 'The service could not be verified' },
    options,
  );
}

/** An answer that cannot be read, or in more than one way. */
export function malformedThere(options: ConstructorParameters<typeof ProblemError>[1]): ProblemError {
  return new ProblemError(
    { status: 502, code: 'upstream-malformed', title: 'The service does not speak HTTP' },
    options,
  );
}
