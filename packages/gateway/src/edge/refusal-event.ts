import type { EventSink } from '@sallyport/core/spi';
import type { EdgeRequest } from '../edge-request.js';
import type { ProblemError } from '../problem.js';

/** Tells operators of a request that was ended, and more of the reason than the client learns. */
export function tellRefusal(
  events: EventSink,
  request: EdgeRequest,
  { problem, reason }: ProblemError,
  subject?: string,
): void {
  events.emit('request-refused', {
    request: request.id,
    method: request.method,
    path: request.path,
    status: problem.status,
    code: problem.code,
    remoteAddress: request.remoteAddress,
    detail: reason ?? problem.detail ?? problem.title,
    ...(subject === undefined ? {} : { subject }),
  });
}
