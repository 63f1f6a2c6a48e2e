import { CallError, InsecureConfigurationError, Status } from '@sallyport/core';
import type { Violation } from '@sallyport/core/spi';

/** What went wrong, in words of ours: whatever else was thrown may hold a token. */
export function detailOf(error: unknown): string {
  if (error instanceof CallError) return error.message;
  return error instanceof InsecureConfigurationError ? problemsOf(error.violations) : 'the request failed';
}

export function problemsOf(violations: readonly Violation[]): string {
  return violations.map(({ problem }) => problem).join(', ');
}

export function isUnavailable(error: unknown): boolean {
  return error instanceof CallError && error.code === Status.UNAVAILABLE;
}

export function isNotFound(error: unknown): boolean {
  return error instanceof CallError && error.code === Status.NOT_FOUND;
}

export function isDenied(error: unknown): boolean {
  return (
    error instanceof CallError && (error.code === Status.UNAUTHENTICATED || error.code === Status.PERMISSION_DENIED)
  );
}
