import type { Metadata as GrpcMetadata, StatusObject } from '@grpc/grpc-js';
import {
  CallError,
  type CallStatus,
  decodeStatusDetails,
  encodeStatusDetails,
  Status,
  type StatusCode,
  UnprocessedCallError,
} from '@sallyport/core/spi';
import { fromGrpc, statusDetailsOf, toGrpc, withStatusDetails } from './metadata.js';

/** A status that does not fit into a header would never arrive: the caller would wait for its deadline. */
const MAX_MESSAGE_LENGTH = 4096;

/** What grpc-js says of a call for which it had no connection, whether from the beginning or after it was refused. */
const NEVER_BEGUN = /^No connection established\b/;

export interface GrpcStatus {
  readonly code: number;
  readonly details: string;
  readonly metadata: GrpcMetadata;
}

/** The status of a finished call as grpc-js wants it. Throws on what is no status, whatever its type says. */
export function toGrpcStatus(status: CallStatus): GrpcStatus {
  // grpc-js percent-encodes the message and throws, outside of any handler, on a lone surrogate.
  const details = status.message.slice(0, MAX_MESSAGE_LENGTH).toWellFormed();
  const metadata = toGrpc(status.trailers);
  if (status.details && status.details.length > 0) {
    withStatusDetails(metadata, encodeStatusDetails(status.code, status.message, status.details));
  }
  return { code: status.code, details, metadata };
}

/** A failed call of grpc-js as ours. */
export function toCallError(status: StatusObject): CallError {
  if (status.code === Status.UNAVAILABLE && NEVER_BEGUN.test(status.details)) {
    return new UnprocessedCallError('UNAVAILABLE', status.details);
  }
  const bytes = statusDetailsOf(status.metadata);
  return new CallError(knownCode(status.code), status.details, {
    metadata: fromGrpc(status.metadata),
    details: bytes ? decodeStatusDetails(bytes) : [],
    received: true,
  });
}

function knownCode(code: number): StatusCode {
  return code >= 1 && code <= 16 ? (code as StatusCode) : Status.UNKNOWN;
}
