import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { createServer } from 'node:tls';
import { allow, defineContract, unary } from 'sallyport';
import { mesh } from 'sallyport/testing';
import { z } from 'zod';
import { failureOf } from '../support/attacks/traveller.js';
import { eventually } from '../support/eventually.js';
import { instanceOf } from '../support/instance.js';
import { forEachLane, lanesUnderTest } from '../support/lanes.js';
import { mutePeer, rawPeer } from '../support/raw-peer.js';
import { contextOf } from '../support/registry-context.js';

const Wait = defineContract('test.ends.v1.Wait', {
  wait: unary(z.object({ ms: z.int() }), z.object({})),
});

forEachLane(() => {
  describe('a connection', () => {
    it('whose handshake ends while its server drains is told to leave, and holds up no stop', async () => {
      await using world = mesh(lanesUnderTest());
      const service = world
        .service('waiter', {
          authorize: [allow({ from: world.id('web'), to: 'test.ends.v1.Wait/*' })],
          drain: { spreadMs: 0, graceMs: 8000 },
        })
        .handle(Wait, {
          wait: async ({ ms }) => {
            await pause(ms);
            return {};
          },
        });
      await world.start();
      const web = (await world.callerAs('web')).client(Wait, { service: 'waiter' });
      await web.wait({ ms: 0 });
      const running = web.wait({ ms: 500 });
      const tcp = await mutePeer(service);
      const stoppedAt = performance.now();

      const stopped = service.stop();
      await pause(100);
      using late = await rawPeer(world, service, { over: tcp, identity: 'web' });

      await running;
      await stopped;
      assert.ok(performance.now() - stoppedAt < 4000, 'it waited for a connection without calls');
      await late.closed;
    });
  });
});

describe('a plain gRPC server that says nothing after the handshake', () => {
  it('keeps no connection of a client that knows it no more', async () => {
    await using world = mesh();
    const { certificatePem: cert, privateKeyPem: key } = world.authority.issue({ id: world.id('mute') });
    using open = new DisposableSockets();
    const mute = createServer(
      { cert, key, ca: world.authority.bundlePem, requestCert: true, ALPNProtocols: ['h2'] },
      (socket) => {
        open.add(socket);
        socket.resume();
      },
    );
    mute.listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const { port } = mute.address() as AddressInfo;
    const session = await world.registry.open(contextOf('mute'));
    const record = instanceOf('mute', { endpoints: [{ host: '127.0.0.1', port }], identity: world.id('mute') });
    const web = world.service('web', { client: { connectTimeoutMs: 400, rotationGraceMs: 400 } });
    const client = web.client(Wait, { service: 'mute' });
    await world.start();
    await session.register(record);

    await eventually(async () => assert.match((await failureOf(client.wait({ ms: 0 }))).message, /127\.0\.0\.1/));
    const whileKnown = open.size;
    await session.deregister(record.id);
    await eventually(async () => assert.match((await failureOf(client.wait({ ms: 0 }))).message, /knows none/));

    await eventually(() => assert.equal(open.size, 0), 5000);
    assert.ok(whileKnown > 0);
    mute.close();
  });
});

/** The connections that are open; ended with the test, whatever became of it. */
class DisposableSockets implements Disposable {
  readonly #sockets = new Set<Socket>();

  get size(): number {
    return this.#sockets.size;
  }

  add(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {}).once('close', () => this.#sockets.delete(socket));
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
