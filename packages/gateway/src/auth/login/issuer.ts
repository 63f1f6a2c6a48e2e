import { type Violation, violation } from '@sallyport/core/spi';
import * as oauth from 'oauth4webapi';
import type { HttpsJson } from '../https-json.js';
import { addressViolations } from '../jwt-options.js';
import { KeySet } from '../key-set.js';
import { scopesOf } from '../scopes.js';
import { httpsFor, SourceRefusal } from '../source-files.js';
import type { ResolvedLogin } from './options.js';

/** What the issuer has said when it vouched for somebody, or did so again. */
export interface Grant {
  /** Of the ID token; undefined where a refresh brought none. */
  readonly claims: oauth.IDToken | undefined;
  readonly idToken: string | undefined;
  /** Undefined: those that there were, or were asked for (RFC 6749 sections 5.1 and 6). */
  readonly scopes: ReadonlySet<string> | undefined;
  readonly refreshToken: string | undefined;
  /** How long the issuer stands by it, ms. */
  readonly lifeMs: number | undefined;
}

/** What a browser keeps of its login while it is at the issuer. */
export interface Attempt {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
}

/** The issuer does not vouch for anybody. The message names the kind of the error alone: the issuer's text may hold the code. */
export class IssuerRefusalError extends Error {
  override readonly name = 'IssuerRefusalError';
}

/** The issuer cannot be asked. */
export class IssuerUnavailableError extends Error {
  override readonly name = 'IssuerUnavailableError';
}

/**
 * What an issuer says of one session alone (RFC 6749 section 5.2, OpenID Connect Core 1.0 section 3.1.2.6). Whoever brings it about
 * must not make the issuer seem down for all others.
 */
const OF_ONE_SESSION: ReadonlySet<string> = new Set([
  'invalid_grant',
  'invalid_scope',
  'access_denied',
  'login_required',
  'consent_required',
  'interaction_required',
  'account_selection_required',
]);

/** The OpenID provider where people log in. */
export class LoginIssuer {
  readonly #options: ResolvedLogin;
  readonly #https: HttpsJson;
  readonly #server: oauth.AuthorizationServer;
  readonly #client: oauth.Client;

  /** Rejects with SourceRefusal. */
  static async open(options: ResolvedLogin): Promise<LoginIssuer> {
    const https = await httpsFor(options.ca, options.timeoutMs, 'login.ca');
    try {
      return new LoginIssuer(options, https, await discovered(options, https));
    } catch (error) {
      https.close();
      throw error;
    }
  }

  private constructor(options: ResolvedLogin, https: HttpsJson, server: oauth.AuthorizationServer) {
    this.#options = options;
    this.#https = https;
    this.#server = server;
    this.#client = { client_id: options.clientId };
  }

  async authorizationUrl({ state, nonce, verifier }: Attempt): Promise<string> {
    const { clientId, redirectUri, scopes } = this.#options;
    return withParameters(this.#server.authorization_endpoint ?? '', {
      response_type: 'code',
      client_id: clientId,
      redirect_uri: redirectUri,
      scope: scopes.join(' '),
      state,
      nonce,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    });
  }

  /** Takes the answer that a browser has brought. Rejects with IssuerRefusalError. */
  async redeem(query: URLSearchParams, { state, nonce, verifier }: Attempt): Promise<Grant> {
    const server = this.#server;
    try {
      const parameters = oauth.validateAuthResponse(server, this.#client, query, state);
      const { redirectUri } = this.#options;
      const response = await oauth.authorizationCodeGrantRequest(
        server,
        this.#client,
        await this.#secret(),
        parameters,
        redirectUri,
        verifier,
        this.#transport(),
      );
      const checks = { expectedNonce: nonce, requireIdToken: true };
      return grantOf(await oauth.processAuthorizationCodeResponse(server, this.#client, response, checks));
    } catch (error) {
      throw new IssuerRefusalError(`the issuer did not vouch for anybody: ${codeOf(error)}`);
    }
  }

  /**
   * Whether the issuer still vouches (RFC 6749 section 6). Rejects with IssuerRefusalError where it does not, or for somebody else
   * than `subject` (OpenID Connect Core 1.0 section 12.2); with IssuerUnavailableError where it does not say.
   */
  async refresh(refreshToken: string, subject: string): Promise<Grant> {
    let answer: oauth.TokenEndpointResponse;
    try {
      const secret = await this.#secret();
      const response = await oauth.refreshTokenGrantRequest(
        this.#server,
        this.#client,
        secret,
        refreshToken,
        this.#transport(),
      );
      answer = await oauth.processRefreshTokenResponse(this.#server, this.#client, response);
    } catch (error) {
      if (error instanceof oauth.ResponseBodyError && OF_ONE_SESSION.has(error.error)) {
        throw new IssuerRefusalError(`the issuer does not vouch any more: ${error.error}`);
      }
      throw new IssuerUnavailableError(`the issuer did not answer a refresh: ${codeOf(error)}`);
    }
    const grant = grantOf(answer);
    if (grant.claims && grant.claims.sub !== subject)
      throw new IssuerRefusalError('the issuer vouches for another one');
    return grant;
  }

  /** Tells the issuer that the token will not be used any more (RFC 7009), if it can be told. Never rejects. */
  async revoke(refreshToken: string): Promise<void> {
    if (this.#server.revocation_endpoint === undefined) return;
    try {
      await oauth.revocationRequest(this.#server, this.#client, await this.#secret(), refreshToken, this.#transport());
    } catch {
      // It ends by itself.
    }
  }

  /** Where a browser ends the issuer's own session (OpenID Connect RP-Initiated Logout 1.0 section 2). */
  endSessionUrl(idToken: string): string | undefined {
    const { end_session_endpoint: address } = this.#server;
    const { clientId, postLogoutRedirectUri } = this.#options;
    if (address === undefined || postLogoutRedirectUri === undefined) return undefined;
    return withParameters(address, {
      id_token_hint: idToken,
      client_id: clientId,
      post_logout_redirect_uri: postLogoutRedirectUri,
    });
  }

  /** Rejects with HttpsJsonError or KeySetError. */
  async keys(): Promise<KeySet> {
    return new KeySet(await this.#https.get(this.#server.jwks_uri ?? ''));
  }

  close(): void {
    this.#https.close();
  }

  async #secret(): Promise<oauth.ClientAuth> {
    return oauth.ClientSecretBasic(await this.#options.clientSecret.read());
  }

  #transport() {
    return { [oauth.customFetch]: fetchThrough(this.#https) };
  }
}

function grantOf(answer: oauth.TokenEndpointResponse): Grant {
  const { id_token: idToken, refresh_token: refreshToken, scope, expires_in: lifeS } = answer;
  return {
    claims: oauth.getValidatedIdTokenClaims(answer),
    idToken,
    scopes: scope === undefined ? undefined : scopesOf(scope),
    refreshToken,
    lifeMs: lifeS === undefined ? undefined : lifeS * 1000,
  };
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
}

async function discovered(options: ResolvedLogin, https: HttpsJson): Promise<oauth.AuthorizationServer> {
  let server: oauth.AuthorizationServer;
  try {
    const url = new URL(options.issuer);
    const response = await oauth.discoveryRequest(url, { [oauth.customFetch]: fetchThrough(https) });
    server = await oauth.processDiscoveryResponse(url, response);
  } catch (error) {
    const problem = error instanceof Error ? error.message : 'it cannot be read';
    throw new SourceRefusal([violation('auth-source-unavailable', 'login.issuer', problem)]);
  }
  const found = endpointViolations(server, options);
  if (found.length > 0) throw new SourceRefusal(found);
  return server;
}

function endpointViolations(server: oauth.AuthorizationServer, options: ResolvedLogin): Violation[] {
  const { authorization_endpoint: authorization = '', token_endpoint: token = '' } = server;
  const { revocation_endpoint: revocation, end_session_endpoint: end, jwks_uri: keys } = server;
  const found: Violation[] = [];
  const missing = (option: string, what: string) =>
    found.push(violation('option-invalid', `login.${option}`, `the issuer names no ${what}`));
  if (options.postLogoutRedirectUri !== undefined && end === undefined) {
    missing('postLogoutRedirectUri', 'end_session_endpoint');
  }
  if (options.backChannelLogoutPath !== undefined && keys === undefined) missing('backChannelLogoutPath', 'jwks_uri');
  const insecure = [authorization, token, revocation, end, keys]
    .filter((address) => address !== undefined)
    .flatMap((address) => addressViolations(address, 'login.issuer'));
  return [...found, ...insecure.slice(0, 1)];
}

function fetchThrough(https: HttpsJson) {
  return (url: string, { method, headers, body }: oauth.CustomFetchOptions<string, URLSearchParams | undefined>) =>
    https.fetch(url, { method, headers, body });
}

function withParameters(address: string, parameters: Readonly<Record<string, string>>): string {
  const url = new URL(address);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return url.href;
}
