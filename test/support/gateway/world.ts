import type { IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { connect, type TLSSocket } from 'node:tls';
import {
  allow,
  bidi,
  type Call,
  clientStream,
  defineContract,
  type EventType,
  type Handlers,
  type SallyportEvent,
  serverStream,
  silentLogger,
  tls,
  unary,
} from '@sallyport/core';
import { type Gateway, type GatewayOptions, gateway, type Route, route } from '@sallyport/gateway';
import { createAuthority, type IdentityFiles } from '@sallyport/pki';
import { type Mesh, mesh } from '@sallyport/testing';
import { z } from 'zod';
import { temporaryFolder } from '../temporary-folder.js';

export const Orders = defineContract('test.orders.v1.Orders', {
  get: unary(z.object({ id: z.string(), times: z.int().min(1).max(5).default(1) }), z.object({ text: z.string() })),
  create: unary(z.object({ id: z.string(), text: z.string().max(20) }), z.object({ text: z.string() })),
  watch: serverStream(z.object({ id: z.string() }), z.object({ n: z.int(), text: z.string().optional() })),
  upload: clientStream(z.object({ id: z.string(), n: z.int() }), z.object({ sum: z.int() })),
  chat: bidi(z.object({ id: z.string(), n: z.int() }), z.object({ n: z.int() })),
});

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** `type` of the problem, its last part. */
  readonly code: string | undefined;
}

export interface GatewayWorld extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly gateway: Gateway;
  readonly port: number;
  /** The CA of the certificates that clients see. */
  readonly ca: string;
  /** The files of the certificate that clients see. */
  readonly certificate: IdentityFiles;
  /** Files of a certificate for clients, by the same CA. */
  webCertificate(name: string, dns: readonly string[]): Promise<IdentityFiles>;
  /** One HTTP/1.1 request to `shop.test` on a connection of its own. */
  ask(method: string, path: string, options?: AskOptions): Promise<Answer>;
  /** Bytes as they are, and what came back until the gateway closed the connection or `settleMs` went by in silence. */
  raw(
    text: string | Uint8Array,
    options?: { readonly settleMs?: number; readonly servername?: string },
  ): Promise<string>;
  /** A connection that speaks HTTP/1.1 unless `alpn` says otherwise. */
  dial(options?: { readonly servername?: string; readonly alpn?: string }): Promise<TLSSocket>;
  events<T extends EventType>(type: T): SallyportEvent<T>[];
  /** Calls that a handler of the service has seen. */
  readonly handled: readonly Call[];
}

export interface AskOptions {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly tls?: RequestOptions;
}

export const plainRoutes: readonly Route[] = [
  route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true }),
  route('POST', '/v1/orders/:id', Orders.create, { service: 'orders', public: true }),
];

export interface GatewayWorldOptions extends Partial<Omit<GatewayOptions, 'tls' | 'identity' | 'registry'>> {
  readonly tls?: Partial<GatewayOptions['tls']>;
  /** Of the service, in place of those that answer. */
  readonly handlers?: Partial<Handlers<typeof Orders>>;
  /** Whether the service hears the gateway when it says for whom it calls. Default true. */
  readonly knowsUsers?: boolean;
  /** Makes the gateway in another way than by `gateway(options)`; `identity` are the files of its own. */
  readonly open?: (options: GatewayOptions, identity: IdentityFiles) => Promise<Gateway>;
}

/** A service `orders`, a gateway in front of it, and clients that trust the gateway's certificate for `shop.test`. */
export async function gatewayWorld({
  tls: tlsOptions,
  handlers,
  knowsUsers = true,
  open = async (options) => gateway(options),
  ...options
}: GatewayWorldOptions = {}): Promise<GatewayWorld> {
  const world = mesh();
  const folder = temporaryFolder();
  const handled: Call[] = [];
  const events: SallyportEvent[] = [];
  const service = world.service('orders', {
    authorize: [allow({ from: world.id('gateway'), to: 'test.orders.v1.Orders/*' })],
    ...(knowsUsers ? { users: { from: world.id('gateway') } } : {}),
  });
  service.handle(Orders, {
    get({ id, times }, call) {
      handled.push(call);
      return { text: id.repeat(times) };
    },
    create({ text }, call) {
      handled.push(call);
      return { text };
    },
    async *watch({ id }, call) {
      handled.push(call);
      for (let n = 0; n < id.length; n++) yield { n };
    },
    async upload(messages, call) {
      handled.push(call);
      let sum = 0;
      for await (const { n } of messages) sum += n;
      return { sum };
    },
    async *chat(messages, call) {
      handled.push(call);
      for await (const { n } of messages) yield { n: n + 1 };
    },
    ...handlers,
  });
  await world.start();
  const web = createAuthority({ trustDomain: 'web.test' });
  const webCertificate = (name: string, dns: readonly string[]) =>
    web.issue({ id: `spiffe://web.test/svc/${name}`, dns, ip: ['127.0.0.1'] }).write(`${folder.path}/${name}`);
  const certificate = await webCertificate('shop', ['shop.test', 'www.shop.test']);
  const identity = await world.authority.issue({ id: world.id('gateway') }).write(`${folder.path}/gateway`);
  const whole: GatewayOptions = {
    listen: '127.0.0.1:0',
    tls: { certificates: [{ cert: certificate.cert, key: certificate.key }], ...tlsOptions },
    identity: tls.fromFiles(identity),
    registry: world.registry,
    routes: plainRoutes,
    drain: { spreadMs: 0, graceMs: 2000 },
    logger: silentLogger,
    ...options,
  };
  const door = await open(whole, identity);
  door.on('*', (event) => events.push(event));
  try {
    await door.start();
  } catch (error) {
    await world.stop();
    folder[Symbol.dispose]();
    throw error;
  }
  const port = door.endpoints[0]?.port ?? 0;
  const ca = web.bundlePem;

  function ask(
    method: string,
    path: string,
    { body, headers = {}, tls: extra = {} }: AskOptions = {},
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const sent = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
      const outgoing = httpsRequest(
        {
          host: '127.0.0.1',
          port,
          method,
          path,
          ca,
          servername: 'shop.test',
          agent: false,
          headers: {
            host: 'shop.test',
            ...(sent === undefined ? {} : { 'content-type': 'application/json' }),
            ...headers,
          },
          ...extra,
        },
        (incoming) => {
          let text = '';
          incoming.setEncoding('utf8');
          incoming.on('data', (chunk) => {
            text += chunk;
          });
          incoming.on('end', () => resolve(answerOf(incoming.statusCode ?? 0, incoming.headers, text)));
          incoming.on('error', reject);
        },
      );
      outgoing.on('error', reject);
      outgoing.end(sent);
    });
  }

  function dial({ servername = 'shop.test', alpn = 'http/1.1' } = {}): Promise<TLSSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, ca, servername, ALPNProtocols: [alpn] }, () => resolve(socket));
      socket.on('error', reject);
    });
  }

  async function raw(text: string | Uint8Array, { settleMs = 300, servername = 'shop.test' } = {}): Promise<string> {
    const socket = await dial({ servername });
    let answer = '';
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        socket.destroy();
        resolve(answer);
      };
      let timer = setTimeout(done, settleMs * 5);
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
        clearTimeout(timer);
        timer = setTimeout(done, settleMs);
      });
      socket.on('close', done);
      socket.on('error', () => {});
      socket.write(text);
    });
  }

  return {
    mesh: world,
    gateway: door,
    port,
    ca,
    certificate,
    webCertificate,
    ask,
    raw,
    dial,
    handled,
    events: <T extends EventType>(type: T) =>
      events.filter((event) => event.type === type) as unknown[] as SallyportEvent<T>[],
    async [Symbol.asyncDispose]() {
      await door.stop();
      await world.stop();
      folder[Symbol.dispose]();
    },
  };
}

function answerOf(status: number, headers: IncomingHttpHeaders, body: string): Answer {
  const isProblem = headers['content-type']?.startsWith('application/problem+json') ?? false;
  const code = isProblem ? (JSON.parse(body) as { type: string }).type.split('/').at(-1) : undefined;
  return { status, headers, body, code };
}
