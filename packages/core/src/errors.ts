import type { Metadata } from './transport/metadata.js';
import type { StatusDetail } from './transport/status-details.js';

/** gRPC status codes (grpc/doc/statuscodes.md). */
export const Status = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type StatusName = keyof typeof Status;
export type StatusCode = (typeof Status)[StatusName];

const names = Object.keys(Status) as StatusName[];

/** The name of a status code; codes that gRPC does not define read as UNKNOWN, as the specification says. */
export function statusName(code: number): StatusName {
  return names[code] ?? 'UNKNOWN';
}

export interface CallErrorOptions {
  readonly cause?: unknown;
  /** Trailing metadata that travels with the status. */
  readonly metadata?: Metadata;
  /** Structured details, sent as `google.rpc.Status` in `grpc-status-details-bin`. */
  readonly details?: readonly StatusDetail[];
  /** For lanes: the status came from the other side. Default false. */
  readonly received?: boolean;
}

/**
 * The outcome of a call that did not succeed. Throw it in a handler to choose the status that the caller sees; every
 * other error becomes INTERNAL without its text, because a foreign message may hold anything.
 */
export class CallError extends Error {
  override readonly name = 'CallError';
  readonly code: StatusCode;
  readonly metadata: Metadata | undefined;
  readonly details: readonly StatusDetail[];
  /**
   * True for the answer of a called service, false for what this process decided. A handler that lets such an error through
   * passes on its code and message, but not the metadata and details: those were meant for this service.
   */
  readonly received: boolean;

  constructor(code: StatusCode | StatusName, message: string, options: CallErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = typeof code === 'string' ? Status[code] : code;
    this.metadata = options.metadata;
    this.details = options.details ?? [];
    this.received = options.received ?? false;
  }

  /** `PERMISSION_DENIED` for code 7, and so on. */
  get status(): StatusName {
    return statusName(this.code);
  }
}

/**
 * A call that no server has looked at, e.g. because it was refused with REFUSED_STREAM or is beyond the last stream of GOAWAY (RFC
 * 9113 §8.7). Lanes tell with it; the client makes such a call once more, and only then shows it as what it is: a CallError.
 */
export class UnprocessedCallError extends CallError {}

/** A promise of the API was broken by the program itself, e.g. `handle()` after `start()`. The message says what to do. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
