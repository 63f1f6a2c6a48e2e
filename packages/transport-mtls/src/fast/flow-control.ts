import { ErrorCode, LARGEST_WINDOW_BYTES, ProfileViolation } from './frames.js';

/** The window after a WINDOW_UPDATE (RFC 9113 §6.9.1). Throws ProfileViolation for an increment of zero and for an overflow. */
export function widened(window: number, increment: number): number {
  if (increment === 0) throw new ProfileViolation(ErrorCode.PROTOCOL_ERROR, 'WINDOW_UPDATE of zero');
  return requireWindow(window + increment);
}

/** The window after the peer changed SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.9.2); it may become negative. */
export function shifted(window: number, before: number, after: number): number {
  return requireWindow(window + after - before);
}

/** What is left of a window after the peer sent `bytes`. Throws ProfileViolation when it sent more than it was granted. */
export function consumed(window: number, bytes: number): number {
  if (bytes > window) throw new ProfileViolation(ErrorCode.FLOW_CONTROL_ERROR, 'more DATA than the window allows');
  return window - bytes;
}

/**
 * How much to grant now, so that the peer may always send `target` bytes beyond what is held for a slow reader; 0 while
 * it is less than half of that, because small grants would cost more frames than they help.
 */
export function grant(window: number, target: number, heldBytes: number): number {
  const missing = target - heldBytes - window;
  return missing * 2 >= target ? missing : 0;
}

function requireWindow(window: number): number {
  if (window > LARGEST_WINDOW_BYTES) throw new ProfileViolation(ErrorCode.FLOW_CONTROL_ERROR, 'a window beyond 2^31-1');
  return window;
}
