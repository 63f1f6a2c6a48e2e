import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type RequestListener, type Server } from 'node:http';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  type IncomingHttpStatusHeader,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { allow } from '@sallyport/core';
import { type Conversation, callerAt } from './conversation.js';
import { idOf, type SidecarWorld, type Started } from './world.js';

/** A rule that lets `web` ask everything of a program that speaks HTTP. */
export const EVERYTHING = [allow({ from: idOf('web'), to: '* /**' })];

export interface WebProgram extends AsyncDisposable {
  readonly address: string;
  readonly server: Server;
  /** Connections that are open. */
  readonly connections: ReadonlySet<Socket>;
  /** How many were ever accepted. */
  readonly accepted: number;
  stop(): Promise<void>;
}

/** A program that speaks HTTP/1.1 and knows nothing of TLS. */
export async function webProgram(serve: RequestListener): Promise<WebProgram> {
  const connections = new Set<Socket>();
  let accepted = 0;
  const server = createServer({ keepAliveTimeout: 60_000 }, serve);
  server.on('connection', (socket) => {
    accepted++;
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  async function stop(): Promise<void> {
    for (const socket of connections) socket.destroy();
    if (!server.listening) return;
    server.close();
    await once(server, 'close');
  }
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    server,
    connections,
    get accepted() {
      return accepted;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Answers with what it was asked: `{ method, url, headers, body }`. */
export const mirror: RequestListener = (request, response) => {
  let body = '';
  request.setEncoding('utf8').on('data', (text: string) => {
    body += text;
  });
  request.on('end', () => {
    const { method, url, rawHeaders, trailers } = request;
    const headers = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [[name.toLowerCase(), rawHeaders[i + 1]]] : []));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ method, url, headers, trailers, body }));
  });
};

export interface Mirrored {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly trailers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface Answered {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly trailers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
  /** What the mirror has seen. */
  mirrored(): Mirrored;
}

/** How a TLS client of `web`, or of whoever is named, comes to the door. */
export function callerOptions(world: SidecarWorld, door: Started, name: string) {
  const [endpoint] = door.sidecar.endpoints;
  const credentials = world.authority.issue({ id: idOf(name) });
  return {
    ...endpoint,
    cert: credentials.certificatePem,
    key: credentials.privateKeyPem,
    ca: world.authority.bundlePem,
    servername: 'sallyport.internal',
    checkServerIdentity: () => undefined,
  };
}

export interface Asking {
  readonly name?: string;
  readonly method?: string;
  readonly path?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string | Buffer;
}

/** One request in HTTP/1.1 of `web`, or of whoever is named. Rejects where it broke off. */
export function ask(world: SidecarWorld, door: Started, asking: Asking & RequestOptions = {}): Promise<Answered> {
  const { name = 'web', body, ...rest } = asking;
  return new Promise((resolve, reject) => {
    const request = httpsRequest({ ...callerOptions(world, door, name), agent: false, ...rest } as RequestOptions);
    request.on('error', reject);
    request.once('response', (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', reject);
      response.once('end', () => {
        const bytes = Buffer.concat(parts);
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          trailers: response.trailers,
          body: bytes,
          mirrored: () => JSON.parse(bytes.toString()) as Mirrored,
        });
      });
    });
    request.end(body);
  });
}

export interface H2Caller extends Disposable {
  readonly session: ClientHttp2Session;
  readonly socket: TLSSocket;
  ask(asking?: Asking): Promise<Answered>;
}

/** A connection in HTTP/2 of `web`, or of whoever is named. */
export async function h2Caller(world: SidecarWorld, door: Started, name = 'web'): Promise<H2Caller> {
  const socket = connectTls({ ...callerOptions(world, door, name), ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  const session = connectHttp2('https://ledger', { createConnection: () => socket });
  session.on('error', () => {});
  await once(session, 'connect');
  return {
    session,
    socket,
    ask: ({ method = 'GET', path = '/', headers = {}, body }: Asking = {}) =>
      new Promise((resolve, reject) => {
        const stream = session.request(
          { ':method': method, ':path': path, ':authority': 'ledger', ...headers },
          { endStream: body === undefined },
        );
        const parts: Buffer[] = [];
        let answered: IncomingHttpHeaders & IncomingHttpStatusHeader = {};
        let trailers: Record<string, string | undefined> = {};
        stream.on('error', reject);
        stream.once('response', (given) => {
          answered = given;
        });
        stream.once('trailers', (given) => {
          trailers = given as typeof trailers;
        });
        stream.on('data', (part: Buffer) => parts.push(part));
        stream.once('close', () => {
          if (answered[':status'] === undefined) reject(new Error('no answer'));
          const bytes = Buffer.concat(parts);
          resolve({
            status: answered[':status'] ?? 0,
            headers: answered,
            trailers,
            body: bytes,
            mirrored: () => JSON.parse(bytes.toString()) as Mirrored,
          });
        });
        if (body !== undefined) stream.end(body);
      }),
    [Symbol.dispose]: () => session.destroy(),
  };
}

/** Bytes that are hardly HTTP, of `web`; resolves with what came back until the connection was over, or `until` was there. */
export async function say(world: SidecarWorld, door: Started, text: string, until?: string): Promise<string> {
  using web = await rawCaller(world, door);
  web.socket.write(text, 'latin1');
  const { promise, resolve } = withResolvers();
  const look = (): void => {
    if (until !== undefined && web.text().includes(until)) resolve();
  };
  web.socket.on('data', look);
  await Promise.race([web.closed, web.ended, promise]);
  return web.text();
}

export function rawCaller(
  world: SidecarWorld,
  { sidecar }: Started,
  alpn: readonly string[] = ['http/1.1'],
): Promise<Conversation> {
  const [endpoint] = sidecar.endpoints;
  if (!endpoint) throw new Error('the sidecar has no door');
  const credentials = world.authority.issue({ id: idOf('web') });
  const tls = alpn.length > 0 ? { ALPNProtocols: [...alpn] } : {};
  return callerAt(endpoint, { authority: world.authority, credentials, tls });
}

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
