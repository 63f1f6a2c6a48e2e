import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Server } from 'node:tls';
import { idOf, type SidecarWorld } from './world.js';

export type Handler = (
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
) => unknown;

export interface HttpsServer extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly address: string;
  readonly server: Server;
  /** Of its certificate. */
  readonly serial: string;
  /** Connections that are open. */
  readonly sockets: ReadonlySet<Socket>;
  /** How many were ever accepted. */
  readonly accepted: number;
  readonly requests: number;
  stop(): Promise<void>;
}

export interface HttpsServerOptions {
  /** Whose certificate it shows. Default `billing`. */
  readonly name?: string;
  /** What it speaks. Default HTTP/2 alone. */
  readonly version?: 'h1' | 'h2';
  readonly port?: number;
}

/** A server of somebody else: Node's own, with certificates of the world. */
export async function httpsServer(
  world: SidecarWorld,
  handler: Handler,
  { name = 'billing', version = 'h2', port = 0 }: HttpsServerOptions = {},
): Promise<HttpsServer> {
  const { certificatePem, privateKeyPem, serial } = world.authority.issue({ id: idOf(name) });
  const tls = {
    cert: certificatePem,
    key: privateKeyPem,
    ca: world.authority.bundlePem,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  } as const;
  const server: Server =
    version === 'h2' ? createSecureServer(tls) : createServer({ ...tls, ALPNProtocols: ['http/1.1'] });
  const sockets = new Set<Socket>();
  let accepted = 0;
  let requests = 0;
  server.on('connection', (socket: Socket) => {
    accepted++;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('request', (request, response) => {
    requests++;
    handler(request, response);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  async function stop(): Promise<void> {
    for (const socket of sockets) socket.destroy();
    if (!server.listening) return;
    server.close();
    await once(server, 'close');
  }
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    server,
    serial,
    sockets,
    get accepted() {
      return accepted;
    },
    get requests() {
      return requests;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
