import { createHash, randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { request } from 'node:https';
import { audience, clientId } from './identity-provider.js';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** As much of a browser as the check needs: it trusts one CA, follows redirects, keeps cookies, fills in a form. */
export class Browser {
  readonly #ca: string;
  readonly #cookies = new Map<string, string>();

  constructor(ca: string) {
    this.#ca = ca;
  }

  ask(url: string, { method = 'GET', headers = {}, body }: AskOptions = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const outgoing = request(url, { method, headers, ca: this.#ca, agent: false }, (incoming) => {
        let text = '';
        incoming.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        incoming.on('end', () => {
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: text });
        });
      });
      outgoing.on('error', reject).end(body);
    });
  }

  /** The authorization code flow with PKCE (RFC 7636), as the page does it. Resolves with the access token. */
  async logIn(issuer: string, page: string, user: string, scope: string): Promise<string> {
    const verifier = randomBytes(32).toString('base64url');
    const query = new URLSearchParams({
      client_id: clientId,
      response_type: 'code',
      redirect_uri: `${page}/`,
      scope: `openid ${scope}`,
      resource: audience,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
    });
    let at = await this.#visit(`${issuer}/auth?${query}`, page);
    for (const form of [{ prompt: 'login', login: user, password: 'any' }, { prompt: 'consent' }]) {
      if (at.startsWith(page)) break;
      at = await this.#visit(at, page, new URLSearchParams(form).toString());
    }
    const code = new URL(at).searchParams.get('code') ?? '';
    const { status, body } = await this.ask(`${issuer}/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded', origin: page },
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        client_id: clientId,
        redirect_uri: `${page}/`,
        code,
        code_verifier: verifier,
        resource: audience,
      }).toString(),
    });
    if (status !== 200) throw new Error(`the login failed: ${body}`);
    return JSON.parse(body).access_token;
  }

  /** Follows redirects until there is a form, or the way leads back to the page. Resolves with the address. */
  async #visit(start: string, page: string, form?: string): Promise<string> {
    let [url, body] = [start, form];
    for (let hops = 0; hops < 10 && !url.startsWith(page); hops++) {
      const { status, headers } = await this.ask(url, {
        method: body === undefined ? 'GET' : 'POST',
        headers: {
          cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; '),
          ...(body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
        },
        ...(body === undefined ? {} : { body }),
      });
      for (const cookie of headers['set-cookie'] ?? []) {
        const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
        this.#cookies.set(name, value);
      }
      if (status < 300 || status > 399) return url;
      url = new URL(headers.location ?? '', url).href;
      body = undefined;
    }
    return url;
  }
}
