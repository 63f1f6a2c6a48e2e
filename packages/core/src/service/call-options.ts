import type { Metadata, MetadataInit } from '../transport/metadata.js';

/** What a call needs of an AbortSignal. Whoever makes very many calls may find something cheaper that has it. */
export interface Cancellation {
  readonly aborted: boolean;
  addEventListener(type: 'abort', listener: () => void, options?: { readonly once?: boolean }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** Per-call options of a client. */
export interface CallOptions {
  /**
   * Time the call may take, ms. Default: that of the client; never more than what is left of the call being served, nor
   * than 24.8 days. UsageError when it is not a finite number.
   */
  readonly deadlineMs?: number;
  /** Cancels the call: an AbortSignal, or what does the same. */
  readonly signal?: Cancellation;
  readonly metadata?: MetadataInit;
  /**
   * Repeating the call does no harm: one that ends with UNAVAILABLE is made once more, on another instance where there is one. Unary
   * calls only. Default false: then only a call that no server has looked at is made again.
   */
  readonly idempotent?: boolean;
  /** Receives the initial metadata of the server. */
  readonly onHeaders?: (headers: Metadata) => void;
  /** Receives the trailing metadata of the server. */
  readonly onTrailers?: (trailers: Metadata) => void;
}

/** Their names: every other one is refused, because an option that is misspelled does nothing. */
const NAMES: ReadonlySet<string> = new Set<keyof CallOptions>([
  'deadlineMs',
  'signal',
  'metadata',
  'idempotent',
  'onHeaders',
  'onTrailers',
]);

/** The first name in it that is no option of a call. */
export function unknownCallOption(options: CallOptions): string | undefined {
  for (const name in options) if (!NAMES.has(name)) return name;
  return undefined;
}
