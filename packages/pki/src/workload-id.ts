import { parseTrustDomain as parseDomain, parseSpiffeId, type SpiffeId } from '@sallyport/core';
import { PkiError } from './errors.js';

/** Throws a `PkiError` with code `id-malformed`. */
export function parseWorkloadId(text: string): SpiffeId {
  try {
    return parseSpiffeId(text);
  } catch (cause) {
    throw new PkiError('id-malformed', problemOf(cause), { cause });
  }
}

/** Throws a `PkiError` with code `trust-domain-malformed`. */
export function parseTrustDomain(text: string): string {
  try {
    return parseDomain(text);
  } catch (cause) {
    throw new PkiError('trust-domain-malformed', problemOf(cause), { cause });
  }
}

function problemOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
