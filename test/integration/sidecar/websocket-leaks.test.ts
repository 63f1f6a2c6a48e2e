import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { reset } from '@sallyport/transport-mtls/spi';
import { eventually } from '../../support/eventually.js';
import { idOf, leavesNoDescriptors, sidecarWorld } from '../../support/sidecar/world.js';

const ASKING = 'GET / HTTP/1.1\r\nhost: billing\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n';
const SWITCHING = 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n';

describe('connections that are ended twice', () => {
  leavesNoDescriptors();

  it('closes those to upstreams when the program leaves a WebSocket before it begins, and serves the next one', async () => {
    await using world = sidecarWorld();
    const { certificatePem: cert, privateKeyPem: key } = world.authority.issue({ id: idOf('billing') });
    const server = createServer({ cert, key, ca: world.authority.bundlePem, requestCert: true });
    server.on('upgrade', (_request, socket: Socket) => {
      socket.on('error', () => {}).resume();
      socket.write(SWITCHING);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const door = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', service: 'billing', addresses: [`127.0.0.1:${port}`] } },
      limits: { maxUpstreamRequests: 5 },
    });
    const local = Number(door.sidecar.upstreams.billing?.split(':')[1]);

    // More than may be under way at once.
    for (let round = 1; round <= 8; round++) {
      const program = connect(local, '127.0.0.1').on('error', () => {});
      program.write(ASKING, () => program.resetAndDestroy());
      await once(program, 'close');
      await eventually(async () => assert.equal(await isServed(local), true));
    }

    assert.deepEqual(door.events('upstream-unreachable'), []);
    await world[Symbol.asyncDispose]();
    server.close();
    await once(server, 'close');
  });

  it('closes one by TLS that is reset while its end is on the way', async () => {
    await using world = sidecarWorld();
    const { certificatePem: cert, privateKeyPem: key } = world.authority.issue({ id: idOf('billing') });
    const server = createTlsServer({ cert, key }, (socket) => socket.on('error', () => {}).resume());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const tcp = connect(port, '127.0.0.1');
    const socket = connectTls({ socket: tcp, ca: world.authority.bundlePem, checkServerIdentity: () => undefined });
    await once(socket, 'secureConnect');
    const closed = once(socket, 'close');

    socket.end();
    reset(socket);

    await closed;
    server.close();
    await once(server, 'close');
  });
});

async function isServed(port: number): Promise<boolean> {
  const program = connect(port, '127.0.0.1').on('error', () => {});
  program.write(ASKING);
  const [answer] = (await once(program, 'data')) as [Buffer];
  program.destroy();
  return answer.toString('latin1').startsWith('HTTP/1.1 101 ');
}
