import type { Exchange, Stage } from '../exchange.js';
import { ProblemError } from '../problem.js';
import type { Route, RouteAccess } from '../routes/route.js';
import type { AuthContext, Authenticator, AuthHandler, AuthResult, Principal } from './handler.js';

interface SharedAuthenticator {
  readonly authenticator: Authenticator;
  users: number;
}

/** What is open in one gateway: lists of routes that follow each other share it, and with it what it has seen. */
export type AuthenticatorPool = Map<AuthHandler, SharedAuthenticator>;

/** The handlers of all routes, each opened once. */
export class AuthHandlers {
  readonly #pool: AuthenticatorPool;
  readonly #open = new Map<AuthHandler, Authenticator>();

  private constructor(pool: AuthenticatorPool) {
    this.#pool = pool;
  }

  /** Rejects with what the first handler that cannot be opened rejects with; the others are closed again. */
  static async open(
    routes: readonly Route[],
    context: AuthContext,
    pool: AuthenticatorPool = new Map(),
  ): Promise<AuthHandlers> {
    const handlers = new AuthHandlers(pool);
    try {
      for (const handler of distinctHandlers(routes)) await handlers.#add(handler, context);
      return handlers;
    } catch (error) {
      await handlers.close();
      throw error;
    }
  }

  async #add(handler: AuthHandler, context: AuthContext): Promise<void> {
    const shared = this.#pool.get(handler) ?? { authenticator: await handler.open(context), users: 0 };
    shared.users++;
    this.#pool.set(handler, shared);
    this.#open.set(handler, shared.authenticator);
  }

  /** Undefined for public routes. */
  stageFor(route: Route): Stage | undefined {
    const { options } = route;
    if (options.auth === undefined) return undefined;
    const authenticator = this.#open.get(options.auth);
    if (!authenticator) throw new TypeError('the handler of a route was not opened');
    return authentication(authenticator, options);
  }

  async close(): Promise<void> {
    const handlers = [...this.#open.keys()];
    this.#open.clear();
    await Promise.all(handlers.map((handler) => this.#release(handler)));
  }

  async #release(handler: AuthHandler): Promise<void> {
    const shared = this.#pool.get(handler);
    if (!shared || --shared.users > 0) return;
    this.#pool.delete(handler);
    await shared.authenticator.close();
  }
}

export function distinctHandlers(routes: readonly Route[]): AuthHandler[] {
  return [...new Set(routes.flatMap(({ options }) => (options?.auth ? [options.auth] : [])))];
}

/** Headers that hold credentials of some route of the gateway, by their lower-case names. */
export function credentialHeadersOf(routes: readonly Route[]): ReadonlySet<string> {
  const headersOf = ({ credentialHeaders = [], parts = [] }: AuthHandler): readonly string[] => [
    ...credentialHeaders,
    ...parts.flatMap(headersOf),
  ];
  return new Set(distinctHandlers(routes).flatMap(headersOf));
}

function authentication(authenticator: Authenticator, { scopes = [], permit }: RouteAccess): Stage {
  const admit = (exchange: Exchange, result: AuthResult): void => {
    if (result.outcome !== 'authenticated') throw refusal(result, authenticator.challenges);
    const { principal, headers } = result;
    if (headers) Object.assign(exchange.answerHeaders, headers);
    exchange.principal = principal;
    const missing = scopes.filter((scope) => !principal.scopes.has(scope));
    if (missing.length > 0) throw scopeMissing(scopes, missing, authenticator.challenges);
    // Exactly: a promise of `false`, say, would be as good as true.
    if (permit && permit(principal, exchange.request) !== true) throw notPermitted(principal);
  };
  return (exchange) => {
    const result = authenticator.authenticate(exchange.request);
    if ('outcome' in result) return admit(exchange, result);
    return result.then((settled) => admit(exchange, settled));
  };
}

/** RFC 6750 section 3: a request without a credential gets the bare challenge, and learns nothing more. */
function refusal(
  result: Exclude<AuthResult, { outcome: 'authenticated' }>,
  challenges: readonly string[],
): ProblemError {
  if (result.outcome === 'absent') {
    const headers = { 'www-authenticate': [...challenges] };
    return new ProblemError(
      { status: 401, code: 'credential-missing', title: 'Who are you?', headers },
      { reason: 'no credential' },
    );
  }
  const { status, error, reason } = result;
  if (status === 503) {
    const problem = {
      status,
      code: 'authentication-unavailable',
      title: 'Nobody can be authenticated now',
      headers: { 'retry-after': '5' },
    };
    return new ProblemError(problem, { reason });
  }
  if (status === 400)
    return new ProblemError({ status, code: 'credential-malformed', title: 'The credential is malformed' }, { reason });
  const named = (result.challenges ?? challenges).map((challenge) => withError(challenge, error ?? 'invalid_token'));
  const headers = { 'www-authenticate': named, ...result.headers };
  return new ProblemError(
    { status: 401, code: 'credential-invalid', title: 'The credential is not valid', headers },
    { reason },
  );
}

function scopeMissing(
  scopes: readonly string[],
  missing: readonly string[],
  challenges: readonly string[],
): ProblemError {
  const challenge = (text: string) => `${withError(text, 'insufficient_scope')}, scope="${scopes.join(' ')}"`;
  const headers = { 'www-authenticate': challenges.map(challenge) };
  const problem = { status: 403, code: 'scope-missing', title: 'The credential does not allow this', headers };
  return new ProblemError(problem, { reason: `scopes missing: ${missing.join(' ')}` });
}

function notPermitted({ subject }: Principal): ProblemError {
  return new ProblemError(
    { status: 403, code: 'forbidden', title: 'This is not permitted' },
    { reason: `${subject} is not permitted` },
  );
}

function withError(challenge: string, error: string): string {
  return `${challenge}${challenge.includes(' ') ? ',' : ''} error="${error}"`;
}
