import { type Clock, type EventSink, InsecureConfigurationError, type Violation } from '@sallyport/core/spi';
import * as oauth from 'oauth4webapi';
import { z } from 'zod';
import type { EdgeRequest } from '../../edge-request.js';
import { ProblemError } from '../../problem.js';
import type { LocalAnswer, LocalRoute } from '../../routes/route.js';
import type { AuthContext, Authenticator, AuthHandler, AuthResult } from '../handler.js';
import { KeySetError } from '../key-set.js';
import { RemoteKeys } from '../remote-keys.js';
import { scopesOf } from '../scopes.js';
import { refuse, SourceRefusal } from '../source-files.js';
import { refused } from '../token-authenticator.js';
import { clearCookie, cookieOf, setCookie } from './cookies.js';
import { type Grant, IssuerRefusalError, IssuerUnavailableError, LoginIssuer } from './issuer.js';
import { type EndedSession, LogoutTokenError, LogoutTokens } from './logout-token.js';
import { type LoginOptions, parseLoginOptions, type ResolvedLogin } from './options.js';
import { Sealed } from './sealed.js';
import { type Session, Sessions } from './sessions.js';

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
/** So long nobody waits for an issuer that could not be asked. */
const OUTAGE_MS = 2000;
/** How often the keys of the issuer are fetched, and how long they are believed while it is down: as for tokens. */
const KEYS = { refreshMs: 300_000, maxStaleMs: 12 * 3_600_000 } as const;
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
  readonly issuer: LoginIssuer;
  readonly logoutTokens: LogoutTokens | undefined;
  readonly clock: Clock;
  readonly events: EventSink;
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
  /** Ms since the epoch while the issuer could not be asked; undefined: it could. */
  #downUntil: number | undefined;

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

  #routesOf({ loginPath, logoutPath, backChannelLogoutPath, redirectUri }: ResolvedLogin): LocalRoute[] {
    const options = { public: true, cors: false } as const;
    const route = (method: 'GET' | 'POST', path: string, answer: LocalRoute['answer']): LocalRoute =>
      Object.freeze({ kind: 'local', method, path, options, answer });
    const routes = [
      route('GET', loginPath, (request) => this.#begin(request)),
      route('GET', new URL(redirectUri).pathname, (request) => this.#return(request)),
      route('POST', logoutPath, (request) => this.#end(request)),
    ];
    if (backChannelLogoutPath === undefined) return routes;
    return [...routes, route('POST', backChannelLogoutPath, (_request, form) => this.#endFromIssuer(form))];
  }

  async #check(): Promise<readonly Violation[]> {
    const { value, violations } = parseLoginOptions(this.#given);
    if (!value) return violations;
    const found = await value.clientSecret.check('login.clientSecret');
    try {
      const issuer = await LoginIssuer.open(value);
      if (value.backChannelLogoutPath !== undefined)
        await issuer
          .keys()
          .catch(refuseKeys)
          .finally(() => issuer.close());
      else issuer.close();
      return found;
    } catch (error) {
      if (error instanceof SourceRefusal) return [...found, ...error.violations];
      throw error;
    }
  }

  async #start(context: AuthContext): Promise<Authenticator> {
    const { value: options, violations } = parseLoginOptions(this.#given);
    if (!options) throw new InsecureConfigurationError('login', violations);
    const issuer = await LoginIssuer.open(options);
    const keys = options.backChannelLogoutPath === undefined ? undefined : await openKeys(options, issuer, context);
    const logoutTokens = keys && new LogoutTokens(options, keys, context.clock);
    const opened: Open = { options, issuer, logoutTokens, ...context };
    this.#open.push(opened);
    return {
      challenges: [`Session login="${options.loginPath}"`],
      authenticate: (request) => this.#authenticate(request, opened),
      close: async () => {
        keys?.close();
        issuer.close();
        const index = this.#open.indexOf(opened);
        if (index >= 0) this.#open.splice(index, 1);
      },
    };
  }

  #authenticate(request: EdgeRequest, opened: Open): AuthResult | Promise<AuthResult> {
    const id = cookieOf(request, SESSION);
    if (id === undefined) return { outcome: 'absent' };
    const foreign = foreignProblem(request);
    if (foreign !== undefined) return refused(401, foreign);
    const now = opened.clock.now();
    const session = this.#sessions.find(id, now);
    if (!session) return noSession();
    if (session.isStale(now)) return this.#renewed(id, session, opened);
    return { outcome: 'authenticated', principal: session.principal };
  }

  /** The issuer is asked once, however many requests of the session wait for it: it takes each refresh token once. */
  async #renewed(id: string, session: Session, opened: Open): Promise<AuthResult> {
    const isDown = this.#downUntil !== undefined && opened.clock.now() < this.#downUntil;
    if (isDown && !session.renewing) return refused(503, 'the issuer of the session cannot be asked');
    session.renewing ??= this.#renew(id, session, opened).finally(() => {
      session.renewing = undefined;
    });
    try {
      await session.renewing;
    } catch (error) {
      const { message } = error as IssuerRefusalError | IssuerUnavailableError;
      return refused(error instanceof IssuerRefusalError ? 401 : 503, message);
    }
    // It may have been ended meanwhile.
    return this.#sessions.has(id) ? { outcome: 'authenticated', principal: session.principal } : noSession();
  }

  async #renew(id: string, session: Session, { issuer, clock, options, events }: Open): Promise<void> {
    const tell = (state: 'down' | 'fresh', detail: string) =>
      events.emit('auth-source-state', { source: options.issuer, state, detail });
    try {
      const grant = await issuer.refresh(session.refreshToken ?? '', session.principal.subject);
      session.renew(grant, clock.now());
    } catch (error) {
      if (error instanceof IssuerUnavailableError) {
        if (this.#downUntil === undefined) tell('down', error.message);
        this.#downUntil = clock.now() + OUTAGE_MS;
        throw error;
      }
      this.#sessions.end(id);
      throw error;
    }
    if (this.#downUntil !== undefined) tell('fresh', '');
    this.#downUntil = undefined;
  }

  async #begin(request: EdgeRequest): Promise<LocalAnswer> {
    const { issuer, clock } = this.#opened();
    const [asked = '/'] = request.query.get('return') ?? [];
    const attempt: z.output<typeof attemptSchema> = {
      state: oauth.generateRandomState(),
      nonce: oauth.generateRandomNonce(),
      verifier: oauth.generateRandomCodeVerifier(),
      returnTo: LOCAL_PATH.test(asked) ? asked : '/',
      until: clock.now() + ATTEMPT_MS,
    };
    const location = await issuer.authorizationUrl(attempt);
    return redirect(location, setCookie(ATTEMPT, this.#sealed.seal(attempt), { maxAgeMs: ATTEMPT_MS }));
  }

  /** Takes back only a browser that has begun here, and lately: else a stranger could log it in as himself. */
  async #return(request: EdgeRequest): Promise<LocalAnswer> {
    const { options, issuer, clock } = this.#opened();
    const attempt = attemptSchema.safeParse(this.#sealed.open(cookieOf(request, ATTEMPT) ?? '')).data;
    if (!attempt || attempt.until <= clock.now()) throw loginFailed('this browser has begun no login');
    const query = new URLSearchParams();
    for (const [name, values] of request.query) for (const value of values) query.append(name, value);
    let grant: Grant;
    try {
      grant = await issuer.redeem(query, attempt);
    } catch (error) {
      throw loginFailed((error as IssuerRefusalError).message);
    }
    const { claims } = grant;
    if (!claims) throw loginFailed('the issuer did not say who it is');
    const principal = {
      subject: claims.sub,
      issuer: claims.iss,
      // RFC 6749 section 5.1: where the issuer says nothing it has granted what was asked for.
      scopes: grant.scopes ?? scopesOf(options.scopes.join(' ')),
      claims: Object.freeze({ ...claims }),
    };
    this.#sessions.end(cookieOf(request, SESSION) ?? '');
    const id = this.#sessions.begin(principal, grant, clock.now());
    return redirect(attempt.returnTo, setCookie(SESSION, id), clearCookie(ATTEMPT));
  }

  /** Here first, whatever becomes of it at the issuer. */
  async #end(request: EdgeRequest): Promise<LocalAnswer> {
    const foreign = foreignProblem(request);
    if (foreign !== undefined) {
      const problem = { status: 403, code: 'origin-forbidden', title: 'Pages of this origin may not do this' };
      throw new ProblemError(problem, { reason: foreign });
    }
    const session = this.#sessions.end(cookieOf(request, SESSION) ?? '');
    const opened = this.#open.at(-1);
    if (session?.refreshToken !== undefined) await opened?.issuer.revoke(session.refreshToken);
    const elsewhere = session && opened?.issuer.endSessionUrl(session.idToken);
    const location = elsewhere ?? opened?.options.postLogoutRedirectUri;
    if (location !== undefined) return redirect(location, clearCookie(SESSION));
    return { status: 204, headers: { 'set-cookie': [clearCookie(SESSION)] } };
  }

  async #endFromIssuer(form: URLSearchParams): Promise<LocalAnswer> {
    const { logoutTokens } = this.#opened();
    const tokens = form.getAll('logout_token');
    const [token] = tokens;
    if (!logoutTokens || token === undefined || tokens.length > 1) throw logoutRefused('there is not one logout token');
    let ended: EndedSession;
    try {
      ended = await logoutTokens.judge(token);
    } catch (error) {
      if (error instanceof LogoutTokenError) throw logoutRefused(error.message);
      throw logoutUnavailable((error as Error).message);
    }
    this.#sessions.endAll(ended);
    return { status: 200, headers: {} };
  }

  #opened(): Open {
    const latest = this.#open.at(-1);
    if (latest) return latest;
    const problem = { status: 503, code: 'login-unavailable', title: 'Nobody can log in now' };
    throw new ProblemError(problem, { reason: 'no route uses the sessions of this login' });
  }
}

/** Rejects with SourceRefusal, after it has closed what was opened before. */
async function openKeys(options: ResolvedLogin, issuer: LoginIssuer, context: AuthContext): Promise<RemoteKeys> {
  const source = { source: options.issuer, fetch: () => issuer.keys(), ...KEYS };
  try {
    return await RemoteKeys.open({ ...source, ...context }).catch(refuseKeys);
  } catch (error) {
    issuer.close();
    throw error;
  }
}

/** The messages of what it rejects with name the host and the reason. */
function refuseKeys(error: unknown): never {
  if (error instanceof KeySetError) refuse(error.id, 'login.issuer', `its keys cannot be used: ${error.message}`);
  return refuse(
    'auth-source-unavailable',
    'login.issuer',
    error instanceof Error ? error.message : 'it cannot be read',
  );
}

/** Cross-site request forgery: the cookie comes along with whatever any page makes the browser send. */
function foreignProblem({ method, headers, origin: own }: EdgeRequest): string | undefined {
  const { origin, 'sec-fetch-site': site } = headers;
  if (origin !== undefined && origin !== own) return 'the request comes from a page of another origin';
  if (SAFE_METHODS.has(method) || origin === own || site === 'same-origin') return undefined;
  return 'nothing says which page the request comes from';
}

function redirect(location: string, ...cookies: string[]): LocalAnswer {
  return { status: 303, headers: { location, 'set-cookie': cookies } };
}

function noSession(): AuthResult {
  return refused(401, 'there is no such session');
}

function loginFailed(reason: string): ProblemError {
  const detail = 'begin again';
  return new ProblemError(
    { status: 400, code: 'login-failed', title: 'The login did not succeed', detail },
    { reason },
  );
}

/** OpenID Connect Back-Channel Logout 1.0 section 2.8. */
function logoutRefused(reason: string): ProblemError {
  return new ProblemError({ status: 400, code: 'logout-refused', title: 'This ends no session' }, { reason });
}

function logoutUnavailable(reason: string): ProblemError {
  const headers = { 'retry-after': '5' };
  const problem = { status: 503, code: 'authentication-unavailable', title: 'Nobody can be believed now', headers };
  return new ProblemError(problem, { reason });
}
