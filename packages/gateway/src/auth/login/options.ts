import type { Secret } from '@sallyport/core';
import { durationMs, isSecret, limit, type ParsedOptions, parseOptions, violation } from '@sallyport/core/spi';
import { z } from 'zod';
import { parseRoutePath } from '../../routes/route-path.js';
import { addressViolations } from '../jwt-options.js';

/** Login of people in browsers, with the authorization code and PKCE (RFC 6749, RFC 7636, OpenID Connect Core 1.0). */
export interface LoginOptions {
  /** Where people log in, `https://…`; found by OpenID Connect Discovery. */
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: Secret;
  /** Where the issuer leads back to, as it is registered there: `https://shop.example/login/callback`. */
  readonly redirectUri: string;
  /** What is asked for. Default `openid`. */
  readonly scopes?: readonly string[];
  /** Path that begins a login; `?return=/path` says where to go afterwards. Default `/login`. */
  readonly loginPath?: string;
  /** Path that ends the session, by POST. Default `/logout`. */
  readonly logoutPath?: string;
  /**
   * Where the issuer leads the browser after a logout, as it is registered there. With it the logout also ends the session at the
   * issuer (OpenID Connect RP-Initiated Logout 1.0). Left out: that one stays.
   */
  readonly postLogoutRedirectUri?: string;
  /**
   * Path at which the issuer tells that it has ended a session (OpenID Connect Back-Channel Logout 1.0), as it is registered there.
   * Left out: the issuer cannot.
   */
  readonly backChannelLogoutPath?: string;
  /** Longest life of a session, ms. Default 8 hours. */
  readonly sessionMs?: number;
  /** Longest time without a request, ms. Default 30 minutes. */
  readonly idleMs?: number;
  /** Sessions at once; when there are more, the least used one of the same person ends, or of all. Default 10,000. */
  readonly maxSessions?: number;
  /** PEM file: the only CAs that the issuer's certificate may come from. Left out: the public ones. */
  readonly ca?: string;
  /** Time for a request to the issuer, ms. Default 5,000. */
  readonly timeoutMs?: number;
}

const text = z.string().min(1).max(2048);
const path = z.string().superRefine((given, context) => {
  try {
    if (parseRoutePath(given).length > 0 && !given.includes(':')) return;
  } catch {
    // Said below.
  }
  context.addIssue({ code: 'custom', message: 'expected a path without parameters, e.g. /login' });
});

const schema = z.strictObject({
  issuer: text,
  clientId: text,
  clientSecret: z.custom<Secret>(isSecret, 'expected a secret'),
  redirectUri: text,
  scopes: z.array(text).default(['openid']),
  loginPath: path.default('/login'),
  logoutPath: path.default('/logout'),
  postLogoutRedirectUri: text.optional(),
  backChannelLogoutPath: path.optional(),
  sessionMs: durationMs({ max: 7 * 86_400_000 }).default(8 * 3_600_000),
  idleMs: durationMs({ max: 86_400_000 }).default(1_800_000),
  maxSessions: limit({ max: 1_000_000 }).default(10_000),
  ca: text.optional(),
  timeoutMs: durationMs({ max: 60_000 }).default(5000),
});

export type ResolvedLogin = z.output<typeof schema>;

export function parseLoginOptions(options: unknown): ParsedOptions<ResolvedLogin> {
  const { value, violations } = parseOptions(schema, options, 'login');
  if (!value) return { value: undefined, violations };
  const found = [
    ...violations,
    ...addressViolations(value.issuer, 'login.issuer'),
    ...addressViolations(value.redirectUri, 'login.redirectUri'),
  ];
  if (value.postLogoutRedirectUri !== undefined) {
    found.push(...addressViolations(value.postLogoutRedirectUri, 'login.postLogoutRedirectUri'));
  }
  if (!value.scopes.includes('openid')) {
    found.push(violation('option-invalid', 'login.scopes', 'without openid nobody says who has logged in'));
  }
  return { value: found.length > 0 ? undefined : (value as ResolvedLogin), violations: found };
}
