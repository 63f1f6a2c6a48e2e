import { Status, type StatusCode } from '@sallyport/core/spi';
import type { Incoming } from './incoming.js';
import type { AnswerHead } from './message.js';

export interface RefusalFields {
  /** Of the answer in HTTP. */
  readonly status: number;
  /** Stable name of what is wrong, e.g. `header-repeated`. */
  readonly code: string;
  /** What the caller is told: nothing internal. */
  readonly title: string;
  /** A sentence more, for whoever writes the caller. */
  readonly detail?: string;
  /** Of the answer in gRPC. Default: what comes nearest to the status in HTTP. */
  readonly grpcStatus?: StatusCode;
}

/** Ends a request with an answer of the sidecar itself. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly detail: string | undefined;
  readonly grpcStatus: StatusCode;

  constructor({ status, code, title, detail, grpcStatus = grpcStatusOf(status) }: RefusalFields) {
    super(detail ?? title);
    this.status = status;
    this.code = code;
    this.title = title;
    this.detail = detail;
    this.grpcStatus = grpcStatus;
  }
}

/** Answers a request with a refusal; what has an answer already is broken off. */
export function refuse(incoming: Incoming, refusal: Refusal): void {
  if (incoming.hasAnswer) {
    incoming.breakOff();
    return;
  }
  const { head, body } = answerTo(refusal, isGrpc(incoming));
  const end = !head.hasBody || incoming.method === 'HEAD';
  incoming.respond(head, end);
  if (end) return;
  incoming.answer.write(body);
  incoming.end();
}

/** Whether the caller understands statuses of gRPC. */
export function isGrpc({ version, headers }: Pick<Incoming, 'version' | 'headers'>): boolean {
  return version === 'h2' && /^application\/grpc(?:[+;]|$)/.test(String(headers['content-type'] ?? ''));
}

const TYPE_BASE = 'https://sallyport.dev/problems/';

/** A problem of RFC 9457; in gRPC headers alone ("Trailers-Only"), whose end is the end of the answer. */
export function answerTo(refusal: Refusal, grpc: boolean): { readonly head: AnswerHead; readonly body: string } {
  const { status, grpcStatus, message } = refusal;
  if (grpc) {
    const headers = {
      'content-type': 'application/grpc',
      'grpc-status': String(grpcStatus),
      // The sentences are our own and have nothing that would have to be encoded.
      'grpc-message': message,
    };
    return { head: { status: 200, headers, hasBody: false }, body: '' };
  }
  const { code, title, detail } = refusal;
  const body = JSON.stringify({ type: TYPE_BASE + code, title, status, ...(detail === undefined ? {} : { detail }) });
  const headers = { 'content-type': 'application/problem+json', 'content-length': String(Buffer.byteLength(body)) };
  return { head: { status, headers, hasBody: true }, body };
}

function grpcStatusOf(status: number): StatusCode {
  return grpcStatuses[status] ?? Status.UNKNOWN;
}

const grpcStatuses: Readonly<Record<number, StatusCode>> = {
  400: Status.INVALID_ARGUMENT,
  403: Status.PERMISSION_DENIED,
  405: Status.UNIMPLEMENTED,
  408: Status.DEADLINE_EXCEEDED,
  415: Status.INVALID_ARGUMENT,
  429: Status.RESOURCE_EXHAUSTED,
  431: Status.RESOURCE_EXHAUSTED,
  502: Status.UNAVAILABLE,
  503: Status.UNAVAILABLE,
  504: Status.DEADLINE_EXCEEDED,
};
