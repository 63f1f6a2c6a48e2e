import type { Secret } from '@sallyport/core';
import {
  type Clock,
  durationMs,
  type EventSink,
  InsecureConfigurationError,
  isSecret,
  limit,
  type ParsedOptions,
  parseOptions,
  type Violation,
} from '@sallyport/core/spi';
import { z } from 'zod';
import { confirmationOf } from './confirmation.js';
import { type DpopNonceOptions, DpopNonces, dpopNonceSchema, nonceViolations } from './dpop-nonces.js';
import type { AuthContext, Authenticator, AuthHandler } from './handler.js';
import { type HttpsJson, HttpsJsonError } from './https-json.js';
import { addressViolations } from './jwt-options.js';
import { scopesOf } from './scopes.js';
import { httpsFor, SourceRefusal } from './source-files.js';
import {
  type Refused,
  refused,
  TokenAuthenticator,
  type TokenBinding,
  type TokenJudge,
  type VerifiedToken,
} from './token-authenticator.js';

/** The server that knows what its tokens stand for (RFC 7662), and who we are to it. */
export interface IntrospectionOptions {
  /** `https://…`, the introspection endpoint. */
  readonly endpoint: string;
  /** With the secret in `Authorization: Basic` (RFC 6749 section 2.3.1). */
  readonly clientId: string;
  readonly clientSecret: Secret;
  /** `iss` that an answer must name. Left out: the server answers for its own tokens alone, and its address stands for it. */
  readonly issuer?: string;
  /** `aud` that an answer must name. Left out: every token that the server calls active is taken. */
  readonly audience?: string | readonly string[];
  /** PEM file: the only CAs that the server's certificate may come from. Left out: the public ones. */
  readonly ca?: string;
  /** Takes only tokens bound to the client's certificate (RFC 8705) or key (RFC 9449). Left out: also unbound ones. */
  readonly binding?: TokenBinding;
  /** Proofs of possession must hold a nonce of the gateway's (RFC 9449 section 9). Left out: they need none. */
  readonly dpopNonce?: DpopNonceOptions;
  /** How long an answer is believed, never past the end of the token, ms: so long a withdrawn token works. Default 10,000. */
  readonly cacheMs?: number;
  /** Default 10,000. */
  readonly maxCachedTokens?: number;
  /** Requests under way at once; tokens beyond that are answered with 503. Default 64. */
  readonly maxConcurrent?: number;
  /** Time for a request, ms. Default 3,000. */
  readonly timeoutMs?: number;
}

/**
 * Tokens that only their issuer can read. When it cannot be asked nobody is let in (503) but those whom it has vouched for a
 * moment ago.
 */
export function introspection(options: IntrospectionOptions): AuthHandler {
  return new IntrospectionHandler(parseIntrospectionOptions(options));
}

/** OAuth 2.0 in its forms. */
export const oauth2 = { introspection } as const;

const text = z.string().min(1).max(2048);

const schema = z.strictObject({
  endpoint: text,
  clientId: text,
  clientSecret: z.custom<Secret>(isSecret, 'expected a secret'),
  issuer: text.optional(),
  audience: z.union([text.transform((one) => [one]), z.array(text).min(1)]).optional(),
  ca: text.optional(),
  binding: z.enum(['certificate', 'dpop']).optional(),
  dpopNonce: dpopNonceSchema.optional(),
  cacheMs: durationMs({ max: 60_000 }).default(10_000),
  maxCachedTokens: limit({ max: 1_000_000 }).default(10_000),
  maxConcurrent: limit({ max: 1000 }).default(64),
  timeoutMs: durationMs({ max: 60_000 }).default(3000),
});

type Resolved = z.output<typeof schema>;

function parseIntrospectionOptions(options: unknown): ParsedOptions<Resolved> {
  const { value, violations } = parseOptions(schema, options, 'introspection');
  const found = [...violations, ...(value ? addressViolations(value.endpoint, 'introspection.endpoint') : [])];
  return { value: found.length > 0 ? undefined : (value as Resolved), violations: found };
}

class IntrospectionHandler implements AuthHandler {
  readonly kind = 'introspection';
  readonly #parsed: ParsedOptions<Resolved>;

  constructor(parsed: ParsedOptions<Resolved>) {
    this.#parsed = parsed;
  }

  /** The server is not asked: while it is down, the gateway starts and says 503. */
  async check(): Promise<readonly Violation[]> {
    const { value, violations } = this.#parsed;
    if (!value) return violations;
    const found = [
      ...(await value.clientSecret.check('introspection.clientSecret')),
      ...(await nonceViolations(value.dpopNonce, 'introspection')),
    ];
    try {
      (await httpsFor(value.ca, value.timeoutMs, 'introspection.ca')).close();
      return found;
    } catch (error) {
      if (error instanceof SourceRefusal) return [...found, ...error.violations];
      throw error;
    }
  }

  async open({ clock, events }: AuthContext): Promise<Authenticator> {
    const found = await this.check();
    const { value } = this.#parsed;
    if (!value || found.length > 0) throw new InsecureConfigurationError('introspection', found);
    const https = await httpsFor(value.ca, value.timeoutMs, 'introspection.ca');
    const { binding, cacheMs, maxCachedTokens } = value;
    const judge = new IntrospectionJudge(value, https, clock, events);
    const nonces = await DpopNonces.open(value.dpopNonce, clock);
    return new TokenAuthenticator(judge, { binding, nonces, cacheMs, maxCachedTokens, clock });
  }
}

interface Answer {
  readonly active?: unknown;
  readonly [claim: string]: unknown;
}

class IntrospectionJudge implements TokenJudge {
  readonly generation = 0;
  readonly #options: Resolved;
  readonly #https: HttpsJson;
  readonly #clock: Clock;
  readonly #events: EventSink;
  /** Requests under way: a token that many present at once is asked for once. */
  readonly #asking = new Map<string, Promise<VerifiedToken | Refused>>();
  #isDown = false;

  constructor(options: Resolved, https: HttpsJson, clock: Clock, events: EventSink) {
    this.#options = options;
    this.#https = https;
    this.#clock = clock;
    this.#events = events;
  }

  judge(token: string): Promise<VerifiedToken | Refused> {
    const underWay = this.#asking.get(token);
    if (underWay) return underWay;
    if (this.#asking.size >= this.#options.maxConcurrent) {
      return Promise.resolve(refused(503, 'too many tokens are being asked for'));
    }
    const asking = this.#judge(token).finally(() => this.#asking.delete(token));
    this.#asking.set(token, asking);
    return asking;
  }

  close(): void {
    this.#https.close();
  }

  async #judge(token: string): Promise<VerifiedToken | Refused> {
    try {
      const answer = await this.#ask(token);
      this.#tell(false, '');
      return this.#verified(answer);
    } catch (error) {
      const problem = error instanceof HttpsJsonError ? error.message : 'the client secret cannot be read';
      this.#tell(true, problem);
      return refused(503, problem);
    }
  }

  async #ask(token: string): Promise<Answer> {
    const { endpoint, clientId, clientSecret } = this.#options;
    const credentials = `${formEncoded(clientId)}:${formEncoded(await clientSecret.read())}`;
    const authorization = `Basic ${Buffer.from(credentials).toString('base64')}`;
    const form = new URLSearchParams({ token, token_type_hint: 'access_token' });
    const answer = await this.#https.post(endpoint, form, { headers: { authorization } });
    if (typeof (answer as Answer | null)?.active === 'boolean') return answer as Answer;
    throw new HttpsJsonError(`${new URL(endpoint).host} does not say whether the token is active`);
  }

  #verified(answer: Answer): VerifiedToken | Refused {
    const { issuer, audience, cacheMs, endpoint } = this.#options;
    const { active, sub, username, client_id: client, iss, aud, exp, nbf, scope, cnf } = answer;
    const now = this.#clock.now();
    if (active !== true) return refused(401, 'the token is not active');
    if (typeof exp === 'number' && exp * 1000 <= now) return refused(401, 'the token has expired');
    if (typeof nbf === 'number' && nbf * 1000 > now) return refused(401, 'the token is not valid yet');
    if (issuer !== undefined && iss !== issuer) return refused(401, 'the token is of another issuer');
    if (audience && ![aud].flat().some((one) => typeof one === 'string' && audience.includes(one))) {
      return refused(401, 'the token is for another audience');
    }
    const confirmation = confirmationOf(cnf);
    if (typeof confirmation === 'string') return refused(401, confirmation);
    const subject = [sub, username, client].find((name) => typeof name === 'string' && name !== '');
    if (typeof subject !== 'string') return refused(401, 'the token names no subject');
    const { active: _active, ...claims } = answer;
    const principal = Object.freeze({
      subject,
      issuer: issuer ?? (typeof iss === 'string' ? iss : new URL(endpoint).origin),
      scopes: scopesOf(scope),
      claims: Object.freeze(claims),
      // Without an end of its own a token is good for as long as the answer is believed.
      expiresAt: typeof exp === 'number' ? exp * 1000 : now + cacheMs,
      method: 'introspection',
    });
    return { principal, confirmation };
  }

  #tell(isDown: boolean, detail: string): void {
    if (isDown === this.#isDown) return;
    this.#isDown = isDown;
    const source = new URL(this.#options.endpoint).origin;
    this.#events.emit('auth-source-state', { source, state: isDown ? 'down' : 'fresh', detail });
  }
}

/** RFC 6749 section 2.3.1: the parts are form-encoded before they are joined. */
function formEncoded(text: string): string {
  return new URLSearchParams({ '': text }).toString().slice(1);
}
