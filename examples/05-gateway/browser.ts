import type { IncomingHttpHeaders } from 'node:http';
import { request } from 'node:https';

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

  async ask(url: string, { method = 'GET', headers = {}, body }: AskOptions = {}): Promise<Answer> {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await new Promise<Answer>((resolve, reject) => {
      const all = cookie === '' ? headers : { ...headers, cookie };
      const outgoing = request(url, { method, headers: all, ca: this.#ca, agent: false }, (incoming) => {
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
    for (const set of answer.headers['set-cookie'] ?? []) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(set) ?? [];
      this.#cookies.set(name, value);
    }
    return answer;
  }

  /** Begins at the gateway, fills in the forms of the provider, and comes back with a session. */
  async logIn(gateway: string, user: string): Promise<void> {
    let at = await this.#visit(`${gateway}/login?return=/`);
    for (const form of [{ prompt: 'login', login: user, password: 'any' }, { prompt: 'consent' }]) {
      if (at.startsWith(gateway)) return;
      at = await this.#visit(at, new URLSearchParams(form).toString());
    }
    if (!at.startsWith(gateway)) throw new Error('the login failed');
  }

  /** Follows redirects until there is a page. Resolves with its address. */
  async #visit(start: string, form?: string): Promise<string> {
    let [url, body] = [start, form];
    for (let hops = 0; hops < 10; hops++) {
      const { status, headers } = await this.ask(url, {
        method: body === undefined ? 'GET' : 'POST',
        headers: body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' },
        ...(body === undefined ? {} : { body }),
      });
      if (status < 300 || status > 399) return url;
      url = new URL(headers.location ?? '', url).href;
      body = undefined;
    }
    return url;
  }
}
