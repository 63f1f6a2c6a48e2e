import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';

/** A program that knows nothing of TLS: what a sidecar stands beside. */
export interface Program extends AsyncDisposable {
  /** `127.0.0.1:port` or `unix:/path` */
  readonly address: string;
  /** Connections that are open. */
  readonly connections: ReadonlySet<Socket>;
  /** How many were ever accepted. */
  readonly accepted: number;
  /** As a program that dies: nobody listens, every connection is closed. */
  stop(): Promise<void>;
}

export type Serve = (socket: Socket) => unknown;

/** Sends back what it reads, each direction ending by itself. */
export const echo: Serve = (socket) => {
  socket.pipe(socket);
};

/** `at`: a port, or the path of a unix socket; left out: a free port. */
export async function program(serve: Serve = echo, at: number | string = 0): Promise<Program> {
  const connections = new Set<Socket>();
  let accepted = 0;
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    accepted++;
    connections.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => connections.delete(socket));
    serve(socket);
  });
  if (typeof at === 'string') server.listen(at);
  else server.listen(at, '127.0.0.1');
  await once(server, 'listening');
  async function stop(): Promise<void> {
    for (const socket of connections) socket.destroy();
    if (!server.listening) return;
    server.close();
    await once(server, 'close');
  }
  return {
    address: typeof at === 'string' ? `unix:${at}` : `127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections,
    get accepted() {
      return accepted;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
