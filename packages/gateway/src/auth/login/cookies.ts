import type { EdgeRequest } from '../../edge-request.js';

/** `__Host-`: browsers keep it to this host, to https and to `Path=/` (RFC 6265bis section 4.1.3.2). */
export type CookieName = `__Host-${string}`;

/** The value of the one cookie of the name; undefined where there is none, or several, of which one is forged. */
export function cookieOf({ headers }: EdgeRequest, name: CookieName): string | undefined {
  const values = (headers.cookie ?? '').split(';').flatMap((pair) => {
    const at = pair.indexOf('=');
    return at > 0 && pair.slice(0, at).trim() === name ? [pair.slice(at + 1).trim()] : [];
  });
  return values.length === 1 ? values[0] : undefined;
}

/** `SameSite=Lax`: pages of other sites can lead here, and cause nothing. Without `maxAgeMs` the cookie ends with the browser. */
export function setCookie(name: CookieName, value: string, { maxAgeMs }: { readonly maxAgeMs?: number } = {}): string {
  const age = maxAgeMs === undefined ? '' : `; Max-Age=${Math.floor(maxAgeMs / 1000)}`;
  return `${name}=${value}; Path=/; Secure; HttpOnly; SameSite=Lax${age}`;
}

export function clearCookie(name: CookieName): string {
  return setCookie(name, '', { maxAgeMs: 0 });
}
