import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { allow } from '@sallyport/core';
import { WebSocket, WebSocketServer } from 'ws';
import { eventually } from '../support/eventually.js';
import { type WebProgram, webProgram } from '../support/sidecar/http.js';
import { idOf, leavesNothingOpen, type Started, sidecarWorld } from '../support/sidecar/world.js';

interface Chat {
  readonly app: WebProgram;
  readonly sockets: WebSocketServer;
  readonly billing: Started;
  readonly web: Started;
  /** As a program does, at the listener of its sidecar. */
  open(path?: string): WebSocket;
}

/** A WebSocket server and its clients, each beside a sidecar. */
async function chat(use: (chat: Chat) => Promise<void>): Promise<void> {
  await using app = await webProgram((_request, response) => response.writeHead(404).end());
  const sockets = new WebSocketServer({ server: app.server });
  await using world = sidecarWorld();
  const billing = await world.start({
    name: 'billing',
    inbound: { target: app.address, protocol: 'http' },
    authorize: [allow({ from: idOf('web'), to: 'GET /chat' })],
  });
  const [door] = billing.sidecar.endpoints;
  assert.ok(door);
  const web = await world.start({
    name: 'web',
    outbound: { listen: '127.0.0.1:0' },
    upstreams: {
      billing: { protocol: 'http', addresses: [`${door.host}:${door.port}`], identity: idOf('billing') },
    },
  });
  const [host = '', port] = (web.sidecar.upstreams.billing ?? '').split(':');
  const open = (path = '/chat') =>
    new WebSocket(`ws://billing${path}`, { createConnection: () => connect(Number(port), host) });
  await use({ app, sockets, billing, web, open });
}

describe('a WebSocket between two sidecars', () => {
  it('talks both ways, text and 4 MiB of bytes, and closes with its code', async () => {
    await chat(async ({ sockets, open }) => {
      sockets.on('connection', (socket, request) => {
        socket.send(`hello ${request.headers['x-sallyport-peer']}`);
        socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
      });
      const client = open();
      const [greeting] = await once(client, 'message');
      const bytes = randomBytes(4 * 1024 * 1024);
      client.send(bytes);
      const [echo] = await once(client, 'message');
      client.close(4001, 'enough');
      const [code] = await once(client, 'close');

      assert.equal(String(greeting), `hello ${idOf('web')}`);
      assert.equal(sha256(echo), sha256(bytes));
      assert.equal(code, 4001);
    });
  });

  it('that no rule allows is refused before the program hears of it', async () => {
    await chat(async ({ app, open }) => {
      let heard = 0;
      app.server.on('upgrade', () => heard++).on('request', () => heard++);
      const client = open('/admin');
      const [, response] = await once(client, 'unexpected-response');
      client.on('error', () => {});
      client.terminate();

      assert.equal(response.statusCode, 403);
      assert.equal(heard, 0);
    });
  });

  it('breaks off on both sides when one breaks off', async () => {
    await chat(async ({ sockets, open }) => {
      const client = open();
      const [server] = await once(sockets, 'connection');
      await once(client, 'open');

      client.terminate();
      const [code] = await once(server, 'close');

      assert.equal(code, 1006);
    });
  });

  it('leaves nothing open', async () => {
    await leavesNothingOpen(() =>
      chat(async ({ app, billing, web, open }) => {
        for (let round = 0; round < 5; round++) {
          const clients = [open(), open(), open()];
          await Promise.all(clients.map((client) => once(client, 'open')));
          clients[0]?.close();
          clients[1]?.terminate();
          clients[2]?.close();
          await Promise.all(clients.map((client) => once(client, 'close')));
        }
        await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
        await eventually(() => assert.equal(billing.sidecar.connections.inbound, 0));
        await eventually(() => assert.equal(app.connections.size, 0));
      }),
    );
  });
});

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
