import { type ServiceError, status } from '@grpc/grpc-js';
import { CallError, Status, type StatusCode, type StatusName, statusName } from '@sallyport/core';

/**
 * A failed call of etcd in our own words: what came from there is compared, never shown, because it may hold anything.
 * `problem`: what the connection itself complained of last.
 */
export function toCallError({ code, details }: ServiceError, address: string, problem: string | undefined): CallError {
  const known = meanings.find((meaning) => meaning.text.test(details));
  if (known) return new CallError(known.code, `${known.message} (${address})`);
  switch (code) {
    case status.UNAVAILABLE: {
      const why = problem ?? systemCode(details);
      return new CallError('UNAVAILABLE', `etcd at ${address} is out of reach${why === undefined ? '' : `: ${why}`}`);
    }
    case status.DEADLINE_EXCEEDED:
      return new CallError('DEADLINE_EXCEEDED', `etcd at ${address} did not answer in time`);
    case status.CANCELLED:
      return new CallError('UNAVAILABLE', `the connection to etcd at ${address} was closed`);
    default:
      return new CallError(codeOf(code), `etcd at ${address} answered ${statusName(code)}`);
  }
}

/** Whether another attempt, perhaps at another member, may succeed. */
export function isOutOfReach(error: unknown): boolean {
  return error instanceof CallError && (error.code === Status.UNAVAILABLE || error.code === Status.DEADLINE_EXCEEDED);
}

/** Whether the credential was not recognised: an expired token, a changed password. */
export function isUnauthenticated(error: unknown): boolean {
  return error instanceof CallError && error.code === Status.UNAUTHENTICATED;
}

export function hasCode(error: unknown, name: StatusName): boolean {
  return error instanceof CallError && error.code === Status[name];
}

/** For events: errors that are not ours may hold anything. */
export function messageOf(error: unknown): string {
  return error instanceof CallError ? error.message : 'unexpected failure';
}

interface Meaning {
  readonly text: RegExp;
  readonly code: StatusName;
  readonly message: string;
}

/** By the texts of etcd's api/v3rpc/rpctypes, since several share a code. */
const meanings: readonly Meaning[] = [
  { text: /invalid auth token/, code: 'UNAUTHENTICATED', message: 'the login at etcd has expired' },
  { text: /revision of auth store is old/, code: 'UNAUTHENTICATED', message: 'the users of etcd have changed' },
  { text: /authentication failed/, code: 'UNAUTHENTICATED', message: 'etcd refused the user name or password' },
  { text: /user name is empty/, code: 'UNAUTHENTICATED', message: 'etcd knows no user for this certificate' },
  { text: /user name not found/, code: 'UNAUTHENTICATED', message: 'etcd does not know this user' },
  {
    text: /authentication is not enabled/,
    code: 'FAILED_PRECONDITION',
    message: 'authentication is not enabled in etcd',
  },
  { text: /permission denied/, code: 'PERMISSION_DENIED', message: 'etcd denied it to this user' },
  { text: /no leader|leader changed/, code: 'UNAVAILABLE', message: 'the etcd cluster has no leader' },
  { text: /request timed out/, code: 'UNAVAILABLE', message: 'the etcd cluster did not agree in time' },
  { text: /lease not found/, code: 'NOT_FOUND', message: 'the lease has passed' },
  { text: /lease already exists/, code: 'ALREADY_EXISTS', message: 'the lease exists' },
  { text: /has been compacted/, code: 'OUT_OF_RANGE', message: 'this part of the history is gone' },
];

/** `ECONNREFUSED` and the like, which grpc-js puts into its sentence. */
function systemCode(details: string): string | undefined {
  return /\bE[A-Z]{4,}\b/.exec(details)?.[0];
}

function codeOf(code: number): StatusCode {
  return code >= 1 && code <= 16 ? (code as StatusCode) : Status.UNKNOWN;
}
