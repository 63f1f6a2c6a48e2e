/** A process whose proxy resets connections in the very moment in which they are shut down. It has nothing to do afterwards. */
import { subscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { FaultProxy } from '../../support/servers/fault-proxy.js';

const CONNECTIONS = 5;

const server = createServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1');
await once(server, 'listening');
const proxy = await FaultProxy.start(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
const proxyPort = Number(new URL(proxy.address).port);

// Told after the proxy has set its own listeners: at the end of what a client says it ends the other side, and we come next.
subscribe('net.server.socket', (message) => {
  const { socket } = message as { socket: Socket };
  if (socket.localPort === proxyPort) socket.once('end', () => proxy.reset());
});

for (let count = 0; count < CONNECTIONS; count++) {
  const client = connect(proxyPort, '127.0.0.1').on('error', () => {});
  client.end('bye');
  await new Promise((resolve) => client.resume().once('close', resolve));
}
await proxy.stop();
server.close();
