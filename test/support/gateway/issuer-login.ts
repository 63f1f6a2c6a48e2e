import { readFileSync } from 'node:fs';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { request } from 'node:https';

export interface Page {
  readonly url: string;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface BrowserOptions {
  /** PEM of every CA that it trusts. */
  readonly ca: readonly string[];
  /** Where a host is really found: `shop.test` at a port of loopback. */
  readonly hosts: Readonly<Record<string, number>>;
}

/** As much of a browser as a login needs: cookies of each host, and redirects that are followed when it is told to. */
export class Browser {
  readonly #options: BrowserOptions;
  readonly #cookies = new Map<string, Map<string, string>>();

  constructor(options: BrowserOptions) {
    this.#options = options;
  }

  cookies(host: string): Map<string, string> {
    const known = this.#cookies.get(host) ?? new Map<string, string>();
    this.#cookies.set(host, known);
    return known;
  }

  get(url: string, headers: Readonly<Record<string, string>> = {}): Promise<Page> {
    return this.#ask('GET', url, undefined, headers);
  }

  post(url: string, form?: Readonly<Record<string, string>>, headers: Readonly<Record<string, string>> = {}) {
    const body = form && new URLSearchParams(form).toString();
    const type: Record<string, string> = form ? { 'content-type': 'application/x-www-form-urlencoded' } : {};
    return this.#ask('POST', url, body, { ...type, ...headers });
  }

  /** Follows redirects while `wanted` does not stop it. */
  async follow(page: Page, stop: (location: string) => boolean = () => false): Promise<Page> {
    let current = page;
    for (let hops = 0; hops < 10; hops++) {
      const { location } = current.headers;
      if (location === undefined) return current;
      const next = new URL(location, current.url).href;
      if (stop(next)) return current;
      current = await this.get(next);
    }
    throw new Error('it redirects for ever');
  }

  /** The cookies for a host as one header. */
  cookieHeader(host: string): string {
    return [...this.cookies(host)].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  async #ask(
    method: string,
    url: string,
    body: string | undefined,
    headers: Readonly<Record<string, string>>,
  ): Promise<Page> {
    const incoming = await this.open(method, url, body, headers);
    let text = '';
    for await (const chunk of incoming) text += chunk;
    return { url, status: incoming.statusCode ?? 0, headers: incoming.headers, body: text };
  }

  /** Resolves with the head of the answer. */
  open(
    method: string,
    url: string,
    body?: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<IncomingMessage> {
    const { hostname, host, port, pathname, search } = new URL(url);
    const jar = this.cookies(host);
    const cookie = this.cookieHeader(host);
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          host: '127.0.0.1',
          port: this.#options.hosts[hostname] ?? port,
          servername: /^[\d.]+$/.test(hostname) ? '' : hostname,
          method,
          path: pathname + search,
          ca: this.#options.ca.map((given) => (given.includes('-----BEGIN') ? given : readFileSync(given, 'utf8'))),
          agent: false,
          headers: { host, ...(cookie === '' ? {} : { cookie }), ...headers },
        },
        (incoming) => {
          for (const set of incoming.headers['set-cookie'] ?? []) keep(jar, set);
          resolve(incoming);
        },
      );
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }
}

function keep(jar: Map<string, string>, set: string): void {
  const [pair = '', ...attributes] = set.split(';');
  const at = pair.indexOf('=');
  const name = pair.slice(0, at).trim();
  const value = pair.slice(at + 1);
  const gone = value === '' || attributes.some((text) => /^\s*(max-age=0|expires=thu, 01 jan 1970)/i.test(text));
  if (gone) jar.delete(name);
  else jar.set(name, value);
}
