import { type Clock, InsecureConfigurationError, type Violation, violation } from '@sallyport/core/spi';
import type { EdgeRequest } from '../edge-request.js';
import type { Authenticator, AuthHandler, AuthResult, Principal } from './handler.js';
import { refused } from './token-authenticator.js';

/**
 * Who makes a request. Undefined: it holds no credential of this kind. A result of another outcome refuses it. What it throws,
 * what is not a principal, and no answer within 5 s are answered with 503.
 */
export type CustomAuthentication = (
  request: EdgeRequest,
) => Promise<Omit<Principal, 'method'> | AuthResult | undefined> | Omit<Principal, 'method'> | AuthResult | undefined;

/** An authentication of your own. `name` is the `method` of its principals and its challenge, e.g. `legacy-session`. */
export function custom(name: string, authenticate: CustomAuthentication): AuthHandler {
  return new CustomHandler(name, authenticate);
}

const NAME = /^[A-Za-z][A-Za-z0-9-]{0,63}$/;
const TIMEOUT_MS = 5000;

class CustomHandler implements AuthHandler {
  readonly kind = 'custom';
  readonly #name: string;
  readonly #authenticate: CustomAuthentication;

  constructor(name: string, authenticate: CustomAuthentication) {
    this.#name = name;
    this.#authenticate = authenticate;
  }

  async check(): Promise<readonly Violation[]> {
    const found: Violation[] = [];
    if (!NAME.test(`${this.#name}`)) found.push(violation('option-invalid', 'custom', 'expected a name'));
    if (typeof this.#authenticate !== 'function')
      found.push(violation('option-invalid', 'custom', 'expected a function'));
    return found;
  }

  async open({ clock }: { readonly clock: Clock }): Promise<Authenticator> {
    const found = await this.check();
    if (found.length > 0) throw new InsecureConfigurationError('custom', found);
    return {
      challenges: [this.#name],
      authenticate: (request) => this.#guarded(request, clock),
      close: async () => {},
    };
  }

  async #guarded(request: EdgeRequest, clock: Clock): Promise<AuthResult> {
    let timer: { cancel(): void } | undefined;
    try {
      const late = new Promise<AuthResult>((resolve) => {
        timer = clock.after(TIMEOUT_MS, () => resolve(refused(503, `${this.#name} took too long`)));
      });
      const found = await Promise.race([(async () => this.#authenticate(request))(), late]);
      if (found === undefined) return { outcome: 'absent' };
      if (!('outcome' in found)) return this.#judged(found, clock);
      return found.outcome === 'authenticated' ? this.#judged(found.principal, clock) : found;
    } catch {
      // The text of a foreign error may hold anything.
      return refused(503, `${this.#name} failed`);
    } finally {
      timer?.cancel();
    }
  }

  #judged(principal: Omit<Principal, 'method'>, clock: Clock): AuthResult {
    const { subject, issuer, scopes, claims, expiresAt, withdrawn } = principal;
    const isOne =
      isName(subject) && isName(issuer) && scopes instanceof Set && typeof claims === 'object' && claims !== null;
    const hasEnd = Number.isFinite(expiresAt) && (withdrawn === undefined || withdrawn instanceof AbortSignal);
    if (!isOne || !hasEnd) return refused(503, `${this.#name} did not answer with a principal`);
    if (withdrawn?.aborted) return refused(401, `the proof of ${this.#name} was taken back`);
    if (expiresAt <= clock.now()) return refused(401, `the proof of ${this.#name} has expired`);
    return { outcome: 'authenticated', principal: { ...principal, method: this.#name } };
  }
}

function isName(value: unknown): boolean {
  return typeof value === 'string' && value !== '';
}
