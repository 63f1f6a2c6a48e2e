import type { EventSink } from '@sallyport/core/spi';
import type { EdgeRequest } from '../edge-request.js';
import type { ProblemError } from '../problem.js';
import type { EdgeIncoming } from './edge-server.js';

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

/** The same for what the guard did not let in. `id` is its correlation id. */
export function tellUnguarded(
  events: EventSink,
  id: string,
  { method = '', url = '', socket }: EdgeIncoming,
  { problem, reason }: ProblemError,
): void {
  events.emit('request-refused', {
    request: id,
    method: method.slice(0, 20),
    // Anything else may hold a name and a password: `https://ada:…@shop.example/`.
    path: url.startsWith('/') ? (url.split('?', 1)[0]?.slice(0, 200) ?? '') : '',
    status: problem.status,
    code: problem.code,
    remoteAddress: socket?.remoteAddress ?? 'unknown',
    detail: reason ?? problem.detail ?? problem.title,
  });
}
