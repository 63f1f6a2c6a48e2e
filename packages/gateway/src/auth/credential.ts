import type { EdgeRequest } from '../edge-request.js';

/** A token as a client presents it (RFC 6750 section 2.1, RFC 9449 section 7.1). */
export interface TokenCredential {
  readonly scheme: 'bearer' | 'dpop';
  readonly token: string;
}

/** Longer ones are no tokens; each has to be hashed, and what signs it has to be found. */
const MAX_TOKEN_BYTES = 8192;
/** token68 of RFC 9110 section 11.2. */
const TOKEN = /^[A-Za-z0-9\-._~+/]+=*$/;

/** Reads `Authorization`. Undefined where it holds no token, `malformed` where it holds something like one. */
export function tokenCredentialOf({ headers }: EdgeRequest): TokenCredential | 'malformed' | undefined {
  const { authorization } = headers;
  const match = authorization === undefined ? null : /^(bearer|dpop)(?: +(.*))?$/i.exec(authorization);
  if (!match) return undefined;
  const token = match[2] ?? '';
  if (token.length > MAX_TOKEN_BYTES || !TOKEN.test(token)) return 'malformed';
  return { scheme: match[1]?.toLowerCase() === 'dpop' ? 'dpop' : 'bearer', token };
}
