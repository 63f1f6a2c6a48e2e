import { createHash, type X509Certificate } from 'node:crypto';

/** Who alone may present a token (RFC 7800): whoever holds the key of this certificate, or this key. */
export type Confirmation =
  | { readonly kind: 'certificate'; readonly thumbprint: string }
  | { readonly kind: 'dpop'; readonly thumbprint: string };

const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/;

/**
 * Reads `cnf`. Undefined where the token is not bound, a sentence where it is bound in a way that cannot be checked here:
 * such a token must not pass as an unbound one.
 */
export function confirmationOf(cnf: unknown): Confirmation | undefined | string {
  if (cnf === undefined) return undefined;
  const members = typeof cnf === 'object' && cnf !== null ? Object.entries(cnf) : [];
  const [[name, thumbprint] = [undefined, undefined]] = members;
  if (members.length !== 1) return 'its confirmation is not one that is known';
  if (typeof thumbprint !== 'string' || !THUMBPRINT.test(thumbprint)) return 'its confirmation is malformed';
  if (name === 'x5t#S256') return { kind: 'certificate', thumbprint };
  if (name === 'jkt') return { kind: 'dpop', thumbprint };
  return 'its confirmation is not one that is known';
}

/** RFC 8705 section 3: the certificate of this connection must be the one that the token was issued to. */
export function certificateProblem(
  certificate: X509Certificate | undefined,
  { thumbprint }: Confirmation,
): string | undefined {
  if (certificate === undefined) return 'the token is bound to a certificate, and the client has presented none';
  const presented = createHash('sha256').update(certificate.raw).digest('base64url');
  return presented === thumbprint ? undefined : 'the token is bound to another certificate';
}
