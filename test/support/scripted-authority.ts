import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { type Authority, createAuthority, type IssueOptions } from '@sallyport/pki';

export const DOMAIN = 'prod.acme';
export const WEB = `spiffe://${DOMAIN}/svc/web`;
export const AUTHORITY = `spiffe://${DOMAIN}/sallyport/authority`;
export const TOKEN = 'a-join-token-of-the-tests';

export interface Heard {
  readonly path: string;
  readonly body: { readonly joinToken?: string; readonly csr: string };
  /** Serial of the client's certificate, if it had one. */
  readonly serial: string | undefined;
}

/** What the authority says in place of what it would say: a body, or whatever it does to the response. */
export type Answer = (heard: Heard, response: ServerResponse) => unknown;

export interface ScriptedAuthorityOptions {
  /** Of the leaves. Default one hour. */
  readonly ttlMs?: number;
  /** The identity it shows itself. Default that of the authority of its trust domain. */
  readonly id?: string;
  /** The identity that its tokens stand for. */
  readonly workload?: string;
  /** Default: a root of its own. */
  readonly root?: Authority;
  /** Signs the leaves. Default: an authority below the root. */
  readonly issuing?: Authority;
  /** Publishes revocation lists. Default false. */
  readonly lists?: boolean;
}

/**
 * An authority of few lines that does what a test tells it to: the protocol of the real one over real TLS, as far as a client
 * sees it, with every answer to be replaced.
 */
export class ScriptedAuthority implements AsyncDisposable {
  readonly heard: Heard[] = [];
  /** The tokens that admit, once each. */
  readonly tokens = new Set([TOKEN]);
  root: Authority;
  issuing: Authority;
  ttlMs: number;
  /** What everybody is told to trust; `publish` tells them of a change. */
  trust: { bundle: string; crls: string[] };
  streams = 0;
  readonly #answers = new Map<string, Answer>();
  readonly #id: string;
  readonly #workload: string;
  readonly #streams = new Set<ServerResponse>();
  readonly #sockets = new Set<TLSSocket>();
  #servers: Server[] = [];
  #ports: [number, number] = [0, 0];

  private constructor(options: ScriptedAuthorityOptions) {
    const { ttlMs = 3_600_000, workload = WEB, root, lists = false } = options;
    this.root = root ?? createAuthority({ trustDomain: DOMAIN });
    this.issuing = options.issuing ?? this.root.intermediate();
    this.ttlMs = ttlMs;
    this.#id = options.id ?? `spiffe://${this.root.trustDomain}/sallyport/authority`;
    this.#workload = workload;
    this.trust = { bundle: this.root.bundlePem, crls: lists ? this.listsOf([]) : [] };
  }

  static async start(options: ScriptedAuthorityOptions = {}): Promise<ScriptedAuthority> {
    const authority = new ScriptedAuthority(options);
    await authority.start();
    return authority;
  }

  get address(): string {
    return `https://127.0.0.1:${this.#ports[0]}`;
  }

  /** A current list of the root and one of the issuing authority, which names `revoked`. */
  listsOf(revoked: readonly string[], number = Date.now()): string[] {
    return [this.root.crl({ revoked: [], number }), this.issuing.crl({ revoked: [...revoked], number })];
  }

  /** From now on `path` is answered so; left out: as a good authority answers. */
  answer(path: string, answer?: Answer): void {
    if (answer) this.#answers.set(path, answer);
    else this.#answers.delete(path);
  }

  publish(trust: Partial<ScriptedAuthority['trust']>): void {
    this.trust = { ...this.trust, ...trust };
    for (const stream of this.#streams) stream.write(this.#state());
  }

  /** To the streams, as it is. */
  say(line: string): void {
    for (const stream of this.#streams) stream.write(line);
  }

  /** Listens, on the same ports each time, with a new certificate. */
  async start(): Promise<void> {
    const { certificatePem: cert, privateKeyPem: key } = this.issuing.issue({ id: this.#id });
    const common = { cert, key, minVersion: 'TLSv1.3', ALPNProtocols: ['http/1.1'] } as const;
    this.#servers = [
      createHttpsServer(common, (request, response) => void this.#serve(request, response)),
      createHttpsServer({ ...common, ca: this.trust.bundle, requestCert: true }, (request, response) => {
        void this.#serve(request, response);
      }),
    ];
    for (const [index, server] of this.#servers.entries()) {
      server.on('secureConnection', (socket: TLSSocket) => {
        this.#sockets.add(socket);
        socket.once('close', () => this.#sockets.delete(socket));
      });
      server.listen(this.#ports[index] ?? 0, '127.0.0.1');
      await once(server, 'listening');
      this.#ports[index] = (server.address() as AddressInfo).port;
    }
  }

  /** As if it were killed. */
  async stop(): Promise<void> {
    const closed = this.#servers.map((server) => once(server, 'close'));
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#servers = [];
    this.#streams.clear();
    await Promise.all(closed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** What a good authority answers to a request for a certificate. */
  issued(csr: string, options: Partial<IssueOptions> = {}): object {
    const { certificatePem } = this.issuing.issueForCsr(csr, { id: this.#workload, ttlMs: this.ttlMs, ...options });
    return { certificate: certificatePem, ...this.trust, renewal: { port: this.#ports[1] } };
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    let text = '';
    for await (const chunk of request) text += chunk;
    const serial = (request.socket as TLSSocket).getPeerX509Certificate()?.serialNumber;
    const heard = { path: request.url ?? '', body: text === '' ? {} : JSON.parse(text), serial };
    this.heard.push(heard);
    const answer = this.#answers.get(heard.path);
    const said = answer ? await answer(heard, response) : this.#goodAnswer(heard, response);
    if (said !== undefined) response.end(JSON.stringify(said));
  }

  #goodAnswer({ path, body, serial }: Heard, response: ServerResponse): object | undefined {
    if (path === '/v1/enroll') {
      if (this.tokens.delete(body.joinToken ?? '')) return this.issued(body.csr);
      return refuse(response, 403, 'join-token-refused');
    }
    if (serial === undefined) return refuse(response, 403, 'not-authorized');
    if (path === '/v1/renew') return this.issued(body.csr);
    this.streams++;
    this.#streams.add(response);
    response.once('close', () => this.#streams.delete(response));
    response.write(this.#state());
    return undefined;
  }

  #state(): string {
    return `${JSON.stringify({ kind: 'state', ...this.trust })}\n`;
  }
}

export function refuse(response: ServerResponse, status: number, code: string): object {
  response.statusCode = status;
  return { code, message: 'said by the test' };
}
