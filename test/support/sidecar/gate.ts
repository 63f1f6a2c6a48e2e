import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface Gate extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly address: string;
  /** How many connections ever came to it. */
  readonly accepted: number;
}

/** A way to the server at `address`, on which each connection waits as long as the test wants it to wait. */
export async function gate(address: string, open: () => unknown): Promise<Gate> {
  const [host = '', port] = address.split(':');
  const sockets = new Set<Socket>();
  const track = (socket: Socket): Socket => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
    return socket;
  };
  let accepted = 0;
  const server = createServer(async (near) => {
    accepted++;
    track(near);
    await open();
    const far = track(connect(Number(port), host));
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroy());
    near.pipe(far).pipe(near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get accepted() {
      return accepted;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
