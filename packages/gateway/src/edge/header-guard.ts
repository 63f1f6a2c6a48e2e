import { isClaim, isHopByHop, namedByConnection, readHeaders } from '@sallyport/core/spi';
import { ProblemError, readOrRefuse } from '../problem.js';

export interface GuardedHeaders {
  /** By lower-case name; what is left for handlers and upstreams. */
  readonly headers: Readonly<Record<string, string>>;
  readonly host: string | undefined;
  /** `X-Forwarded-For` as it came; to be believed of trusted proxies only. */
  readonly forwardedFor: string | undefined;
  /** The client asks to switch to `websocket` (RFC 6455 section 4.1). */
  readonly upgrade: string | undefined;
}

export interface HeaderLimits {
  readonly maxHeaders: number;
}

/**
 * Makes one reading of the headers as they came (`rawHeaders`, names and values in turn): repeated where one is meant is
 * refused, claims of identity are dropped, lists are joined (RFC 9110 section 5.3). Throws ProblemError 400 or 431.
 */
export function guardHeaders(raw: readonly string[], limits: HeaderLimits): GuardedHeaders {
  if (raw.length / 2 > limits.maxHeaders) throw tooMany(limits.maxHeaders);
  const seen = readOrRefuse(() => readHeaders(raw));
  const named = readOrRefuse(() => namedByConnection(seen.connection));
  const headers: Record<string, string> = Object.create(null);
  for (const name in seen) {
    if (isHopByHop(name) || named.includes(name) || isSpoofable(name)) continue;
    headers[name] = seen[name] as string;
  }
  return { headers, host: seen.host, forwardedFor: seen['x-forwarded-for'], upgrade: seen.upgrade };
}

/** Whether a client may not send it, because services would take it for the word of the gateway. */
export function isSpoofable(name: string): boolean {
  return name.includes('_') || isClaim(name);
}

function tooMany(max: number) {
  return new ProblemError({
    status: 431,
    code: 'headers-too-many',
    title: 'The request has too many headers',
    detail: `at most ${max} are taken`,
  });
}
