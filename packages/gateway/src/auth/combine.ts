import type { Violation } from '@sallyport/core/spi';
import type { EdgeRequest } from '../edge-request.js';
import type { AuthContext, Authenticator, AuthHandler, AuthResult, Principal } from './handler.js';

/**
 * Whoever one of the handlers authenticates; the first that does decides who it is. When none does, the gravest of their
 * answers stands: a judge that cannot be asked before a wrong credential, and that before none.
 *
 * @example anyOf(jwt({...}), apiKey(keys))
 */
export function anyOf(...handlers: readonly AuthHandler[]): AuthHandler {
  return new Combination('anyOf', handlers, async (authenticators, request) => {
    let worst: AuthResult = { outcome: 'absent' };
    for (const authenticator of authenticators) {
      const result = await authenticator.authenticate(request);
      if (result.outcome === 'authenticated') return result;
      if (gravity(result) > gravity(worst)) worst = result;
    }
    return worst;
  });
}

/**
 * Whoever all of the handlers authenticate, e.g. a certificate of the company and a token of the person. The first says who
 * it is and what it may; the proof ends with the one that ends first.
 */
export function allOf(...handlers: readonly AuthHandler[]): AuthHandler {
  return new Combination('allOf', handlers, async (authenticators, request) => {
    let first: Principal | undefined;
    const headers: Record<string, string> = {};
    let expiresAt = Number.POSITIVE_INFINITY;
    const withdrawals: AbortSignal[] = [];
    for (const authenticator of authenticators) {
      const result = await authenticator.authenticate(request);
      if (result.outcome !== 'authenticated') return result;
      first ??= result.principal;
      Object.assign(headers, result.headers);
      expiresAt = Math.min(expiresAt, result.principal.expiresAt);
      if (result.principal.withdrawn) withdrawals.push(result.principal.withdrawn);
    }
    // Nobody asked is nobody proven.
    if (!first) return { outcome: 'absent' };
    // One as it is: Node remembers each combination of a signal for as long as that lives.
    const withdrawn = withdrawals.length > 1 ? AbortSignal.any(withdrawals) : withdrawals[0];
    return { outcome: 'authenticated', principal: { ...first, expiresAt, ...(withdrawn && { withdrawn }) }, headers };
  });
}

type Decide = (authenticators: readonly Authenticator[], request: EdgeRequest) => Promise<AuthResult>;

class Combination implements AuthHandler {
  readonly kind: string;
  readonly parts: readonly AuthHandler[];
  readonly #decide: Decide;

  constructor(kind: string, handlers: readonly AuthHandler[], decide: Decide) {
    this.kind = kind;
    this.parts = handlers;
    this.#decide = decide;
  }

  async check(): Promise<readonly Violation[]> {
    const found = await Promise.all(this.parts.map((handler) => handler.check()));
    return found.flat();
  }

  async open(context: AuthContext): Promise<Authenticator> {
    const opened: Authenticator[] = [];
    const close = async () => {
      await Promise.all(opened.map((authenticator) => authenticator.close()));
    };
    try {
      for (const handler of this.parts) opened.push(await handler.open(context));
    } catch (error) {
      await close();
      throw error;
    }
    return {
      challenges: [...new Set(opened.flatMap(({ challenges }) => challenges))],
      authenticate: (request) => this.#decide(opened, request),
      close,
    };
  }
}

function gravity(result: AuthResult): number {
  return result.outcome === 'refused' ? result.status : 0;
}
