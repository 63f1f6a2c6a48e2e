import type { IdentityMatcher } from '@sallyport/core';
import { type Endpoint, isServiceName, type Violation, violation } from '@sallyport/core/spi';

/** `https://10.0.0.7:8443`. Undefined for whatever is no such address, e.g. the name of a service. */
export function parseUpstream(text: string): Endpoint | undefined {
  if (!text.startsWith('https://')) return undefined;
  try {
    const url = new URL(text);
    if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') return undefined;
    if (url.pathname !== '/' || url.hostname === '') return undefined;
    return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? 443 : Number(url.port) };
  } catch {
    return undefined;
  }
}

/** Whoever answers there must be proven, and must be the one that is meant. `path` is the option. */
export function upstreamViolations(upstream: unknown, expect: unknown, path: string): Violation[] {
  if (typeof upstream !== 'string') return [violation('option-missing', `${path}.upstream`)];
  if (/^(?!https:)[a-z][a-z0-9+.-]*:\/\//i.test(upstream)) return [violation('upstream-plaintext', `${path}.upstream`)];
  const isAddress = parseUpstream(upstream) !== undefined;
  if (!isAddress && !isServiceName(upstream)) {
    const problem = 'expected https://host:port, or the name of a service';
    return [violation('option-invalid', `${path}.upstream`, problem)];
  }
  if (expect === undefined) return isAddress ? [violation('identity-expectation-empty', `${path}.expect`)] : [];
  return typeof (expect as IdentityMatcher | null)?.matches === 'function'
    ? []
    : [violation('option-invalid', `${path}.expect`, 'expected an identity, e.g. exactly("spiffe://…")')];
}
