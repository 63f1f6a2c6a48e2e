import type { AuthorityErrorCode } from './protocol.js';

/** A request that is answered with an error. The message goes to the client; `detail` is for the audit log alone. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly code: AuthorityErrorCode;
  readonly detail: string;
  readonly retryAfterMs: number | undefined;

  constructor(code: AuthorityErrorCode, message: string, more: RefusalDetails = {}) {
    super(message, { cause: more.cause });
    this.code = code;
    this.detail = more.detail ?? message;
    this.retryAfterMs = more.retryAfterMs;
  }
}

export interface RefusalDetails {
  readonly detail?: string;
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}
