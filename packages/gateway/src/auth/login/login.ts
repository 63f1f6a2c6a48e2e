import { type Clock, InsecureConfigurationError, type Violation, violation } from '@sallyport/core/spi';
import * as oauth from 'oauth4webapi';
import { z } from 'zod';
import type { EdgeRequest } from '../../edge-request.js';
import { ProblemError } from '../../problem.js';
import type { LocalAnswer, LocalRoute } from '../../routes/route.js';
import type { AuthContext, Authenticator, AuthHandler, AuthResult } from '../handler.js';
import type { HttpsJson } from '../https-json.js';
import { addressViolations } from '../jwt-options.js';
import { scopesOf } from '../scopes.js';
import { httpsFor, SourceRefusal } from '../source-files.js';
import { refused } from '../token-authenticator.js';
import { clearCookie, cookieOf, setCookie } from './cookies.js';
import { type LoginOptions, parseLoginOptions, type ResolvedLogin } from './options.js';
import { Sealed } from './sealed.js';
import { Sessions } from './sessions.js';

/** Sessions of browsers: the handler for routes, and the routes of the login itself. */
export interface Login {
  /** For the routes that people use who have logged in. */
  readonly auth: AuthHandler;
  /** Begin, return and end; put them into `routes` of the gateway. */
  readonly routes: readonly LocalRoute[];
}

/**
 * People who log in at an OpenID provider and then come with a cookie. Sessions live in this process.
 *
 * A request with a session counts only when it does not come from a page of another origin: a foreign `Origin` is refused,
 * and a method that changes something needs the own one (or `Sec-Fetch-Site: same-origin`).
 *
 * @example const people = login({ issuer, clientId, clientSecret, redirectUri: 'https://shop.example/login/callback' })
 */
export function login(options: LoginOptions): Login {
  return new BrowserLogin(options);
}

const SESSION = '__Host-session';
const ATTEMPT = '__Host-login';
const ATTEMPT_MS = 600_000;
/** A path of this gateway: nobody is led to another host by a link to our login. */
const LOCAL_PATH = /^\/(?:[A-Za-z0-9\-._~][A-Za-z0-9\-._~/]*)?(?:\?[A-Za-z0-9\-._~=&]*)?$/;
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);

/** What the browser keeps while its user is at the issuer. */
const attemptSchema = z.strictObject({
  state: z.string(),
  nonce: z.string(),
  verifier: z.string(),
  returnTo: z.string(),
  until: z.number(),
});

interface Open {
  readonly options: ResolvedLogin;
  readonly https: HttpsJson;
  readonly issuer: oauth.AuthorizationServer;
  readonly clock: Clock;
}

class BrowserLogin implements Login {
  readonly auth: AuthHandler;
  readonly routes: readonly LocalRoute[];
  readonly #given: unknown;
  readonly #sealed = new Sealed();
  /** Outlive a change of the gateway's routes. */
  readonly #sessions: Sessions;
  /** The latest last: while the gateway changes its routes there are two. */
  readonly #open: Open[] = [];

  constructor(given: LoginOptions) {
    this.#given = given;
    const { value } = parseLoginOptions(given);
    this.#sessions = new Sessions(value ?? { sessionMs: 1, idleMs: 1, maxSessions: 1 });
    this.auth = {
      kind: 'session',
      check: () => this.#check(),
      open: (context) => this.#start(context),
    };
    this.routes = value ? this.#routesOf(value) : [];
  }

  #routesOf({ loginPath, logoutPath, redirectUri }: ResolvedLogin): LocalRoute[] {
    const options = { public: true, cors: false } as const;
    const route = (method: 'GET' | 'POST', path: string, answer: LocalRoute['answer']): LocalRoute =>
      Object.freeze({ kind: 'local', method, path, options, answer });
    return [
      route('GET', loginPath, (request) => this.#begin(request)),
      route('GET', new URL(redirectUri).pathname, (request) => this.#return(request)),
      route('POST', logoutPath, (request) => this.#end(request)),
    ];
  }

  async #check(): Promise<readonly Violation[]> {
    const { value, violations } = parseLoginOptions(this.#given);
    if (!value) return violations;
    const found = await value.clientSecret.check('login.clientSecret');
    try {
      const https = await httpsFor(value.ca, value.timeoutMs, 'login.ca');
      await discovered(value, https).finally(() => https.close());
      return found;
    } catch (error) {
      if (error instanceof SourceRefusal) return [...found, ...error.violations];
      throw error;
    }
  }

  async #start({ clock }: AuthContext): Promise<Authenticator> {
    const { value: options, violations } = parseLoginOptions(this.#given);
    if (!options) throw new InsecureConfigurationError('login', violations);
    const https = await httpsFor(options.ca, options.timeoutMs, 'login.ca');
    const opened: Open = { options, https, clock, issuer: await discovered(options, https) };
    this.#open.push(opened);
    return {
      challenges: [`Session login="${options.loginPath}"`],
      authenticate: async (request) => this.#authenticate(request, clock),
      close: async () => {
        https.close();
        const index = this.#open.indexOf(opened);
        if (index >= 0) this.#open.splice(index, 1);
      },
    };
  }

  #authenticate(request: EdgeRequest, clock: Clock): AuthResult {
    const id = cookieOf(request, SESSION);
    if (id === undefined) return { outcome: 'absent' };
    const foreign = foreignProblem(request);
    if (foreign !== undefined) return refused(401, foreign);
    const principal = this.#sessions.find(id, clock.now());
    return principal ? { outcome: 'authenticated', principal } : refused(401, 'there is no such session');
  }

  async #begin(request: EdgeRequest): Promise<LocalAnswer> {
    const { options, issuer, clock } = this.#opened();
    const [asked = '/'] = request.query.get('return') ?? [];
    const verifier = oauth.generateRandomCodeVerifier();
    const attempt: z.output<typeof attemptSchema> = {
      state: oauth.generateRandomState(),
      nonce: oauth.generateRandomNonce(),
      verifier,
      returnTo: LOCAL_PATH.test(asked) ? asked : '/',
      until: clock.now() + ATTEMPT_MS,
    };
    const location = new URL(issuer.authorization_endpoint ?? '');
    const parameters = {
      response_type: 'code',
      client_id: options.clientId,
      redirect_uri: options.redirectUri,
      scope: options.scopes.join(' '),
      state: attempt.state,
      nonce: attempt.nonce,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    };
    for (const [name, value] of Object.entries(parameters)) location.searchParams.set(name, value);
    return redirect(location.href, setCookie(ATTEMPT, this.#sealed.seal(attempt), { maxAgeMs: ATTEMPT_MS }));
  }

  /** Takes back only a browser that has begun here, and lately: else a stranger could log it in as himself. */
  async #return(request: EdgeRequest): Promise<LocalAnswer> {
    const { options, issuer, https, clock } = this.#opened();
    const attempt = attemptSchema.safeParse(this.#sealed.open(cookieOf(request, ATTEMPT) ?? '')).data;
    if (!attempt || attempt.until <= clock.now()) throw loginFailed('this browser has begun no login');
    const query = new URLSearchParams();
    for (const [name, values] of request.query) for (const value of values) query.append(name, value);
    const client: oauth.Client = { client_id: options.clientId };
    const transport = { [oauth.customFetch]: fetchThrough(https) };
    let answer: oauth.TokenEndpointResponse;
    try {
      const parameters = oauth.validateAuthResponse(issuer, client, query, attempt.state);
      const secret = oauth.ClientSecretBasic(await options.clientSecret.read());
      const { redirectUri } = options;
      const response = await oauth.authorizationCodeGrantRequest(
        issuer,
        client,
        secret,
        parameters,
        redirectUri,
        attempt.verifier,
        transport,
      );
      const checks = { expectedNonce: attempt.nonce, requireIdToken: true };
      answer = await oauth.processAuthorizationCodeResponse(issuer, client, response, checks);
    } catch (error) {
      // Texts of the issuer may hold the code; the kind of the error says enough.
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
      throw loginFailed(`the issuer did not vouch for anybody: ${code}`);
    }
    const claims = oauth.getValidatedIdTokenClaims(answer);
    if (!claims) throw loginFailed('the issuer did not say who it is');
    const principal = {
      subject: claims.sub,
      issuer: claims.iss,
      // RFC 6749 section 5.1: where the issuer says nothing it has granted what was asked for.
      scopes: scopesOf(answer.scope ?? options.scopes.join(' ')),
      claims: Object.freeze({ ...claims }),
    };
    this.#sessions.end(cookieOf(request, SESSION) ?? '');
    const id = this.#sessions.begin(principal, clock.now());
    return redirect(attempt.returnTo, setCookie(SESSION, id), clearCookie(ATTEMPT));
  }

  #end(request: EdgeRequest): LocalAnswer {
    const foreign = foreignProblem(request);
    if (foreign !== undefined) {
      const problem = { status: 403, code: 'origin-forbidden', title: 'Pages of this origin may not do this' };
      throw new ProblemError(problem, { reason: foreign });
    }
    const id = cookieOf(request, SESSION);
    if (id !== undefined) this.#sessions.end(id);
    return { status: 204, headers: { 'set-cookie': [clearCookie(SESSION)] } };
  }

  #opened(): Open {
    const latest = this.#open.at(-1);
    if (latest) return latest;
    const problem = { status: 503, code: 'login-unavailable', title: 'Nobody can log in now' };
    throw new ProblemError(problem, { reason: 'no route uses the sessions of this login' });
  }
}

/** Cross-site request forgery: the cookie comes along with whatever any page makes the browser send. */
function foreignProblem({ method, headers, origin: own }: EdgeRequest): string | undefined {
  const { origin, 'sec-fetch-site': site } = headers;
  if (origin !== undefined && origin !== own) return 'the request comes from a page of another origin';
  if (SAFE_METHODS.has(method) || origin === own || site === 'same-origin') return undefined;
  return 'nothing says which page the request comes from';
}

/** Rejects with SourceRefusal. */
async function discovered(options: ResolvedLogin, https: HttpsJson): Promise<oauth.AuthorizationServer> {
  try {
    const url = new URL(options.issuer);
    const response = await oauth.discoveryRequest(url, { [oauth.customFetch]: fetchThrough(https) });
    const issuer = await oauth.processDiscoveryResponse(url, response);
    const { authorization_endpoint: authorization = '', token_endpoint: token = '' } = issuer;
    const insecure = [authorization, token].flatMap((address) => addressViolations(address, 'login.issuer'));
    if (insecure.length > 0) throw new SourceRefusal(insecure.slice(0, 1));
    return issuer;
  } catch (error) {
    if (error instanceof SourceRefusal) throw error;
    const problem = error instanceof Error ? error.message : 'it cannot be read';
    throw new SourceRefusal([violation('auth-source-unavailable', 'login.issuer', problem)]);
  }
}

function fetchThrough(https: HttpsJson) {
  return (url: string, { method, headers, body }: oauth.CustomFetchOptions<string, URLSearchParams | undefined>) =>
    https.fetch(url, { method, headers, body });
}

function redirect(location: string, ...cookies: string[]): LocalAnswer {
  return { status: 303, headers: { location, 'set-cookie': cookies } };
}

function loginFailed(reason: string): ProblemError {
  const detail = 'begin again';
  return new ProblemError(
    { status: 400, code: 'login-failed', title: 'The login did not succeed', detail },
    { reason },
  );
}
