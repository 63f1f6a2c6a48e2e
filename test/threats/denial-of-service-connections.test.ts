import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { start } from '../support/child.js';
import { Echo, echoWorld } from '../support/echo.js';
import { eventually } from '../support/eventually.js';
import { callFields, FrameType, frame, hello, hpack } from '../support/h2-frames.js';
import { forEachLane } from '../support/lanes.js';
import { mutePeer, rawPeer } from '../support/raw-peer.js';
import { whileCalling } from '../support/steady-caller.js';

const say = '/test.echo.v1.Echo/say';

function closed(socket: Socket): Promise<unknown> {
  return socket.destroyed ? Promise.resolve() : once(socket, 'close');
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

describe('connections that want to exhaust the service', () => {
  it('T24 a peer that begins a handshake and stops is closed in time', async () => {
    await using world = await echoWorld({ server: { limits: { handshakeTimeoutMs: 200 } } });
    const halfClientHello = Buffer.from('160301020001 0001fc0303'.replaceAll(' ', ''), 'hex');

    await whileCalling(
      () => world.client.say({ text: 'a' }),
      async () => {
        const mute = await mutePeer(world.service);
        const half = await mutePeer(world.service);
        half.write(halfClientHello);
        await Promise.all([closed(mute), closed(half)]);
      },
    );

    assert.deepEqual(
      world.events('handshake-refused').map(({ reason }) => reason),
      ['timeout', 'timeout'],
    );
  });

  it('T24 a peer that sends its handshake byte by byte gains no time by it', async () => {
    await using world = await echoWorld({ server: { limits: { handshakeTimeoutMs: 200 } } });
    const slow = await mutePeer(world.service);
    const beganAt = Date.now();

    for (let i = 0; i < 100 && !slow.destroyed; i++) {
      slow.write(Buffer.of([0x16, 0x03, 0x01, 0x40, 0x00][i] ?? 0));
      await pause(20);
    }

    assert.ok(slow.destroyed);
    assert.ok(Date.now() - beganAt < 1500);
    await world.client.say({ text: 'still here' });
  });

  forEachLane(() => {
    it('T24 a peer that finishes the handshake and says nothing, or half of its headers, is closed', async () => {
      await using world = await echoWorld({
        server: { limits: { idleTimeoutMs: 200, keepaliveIntervalMs: 300, keepaliveTimeoutMs: 100 } },
      });
      const half = frame(FrameType.HEADERS, 0, 1, hpack(callFields(say)));

      await whileCalling(
        () => world.client.say({ text: 'a' }),
        async () => {
          using silent = await rawPeer(world.mesh, world.service, { greet: false });
          using mute = await rawPeer(world.mesh, world.service);
          using slow = await rawPeer(world.mesh, world.service, { greet: false });
          await slow.write(Buffer.concat([hello(), half]));
          await Promise.all([silent.closed, mute.closed, slow.closed]);
        },
      );
    });
  });

  it('T25 a flood of connections over the cap is dropped, and later callers come in', async () => {
    await using world = await echoWorld({ server: { limits: { maxConnections: 20 } } });

    const crowd = await whileCalling(
      () => world.client.say({ text: 'a' }),
      async () => {
        const sockets = await Promise.all(Array.from({ length: 60 }, () => mutePeer(world.service)));
        await eventually(() => assert.equal(sockets.filter((socket) => socket.destroyed).length, 41));
        return sockets;
      },
    );

    const refused = world.events('handshake-refused');
    assert.equal(refused.length, 41);
    assert.ok(refused.every(({ reason }) => reason === 'too-many-connections'));
    for (const socket of crowd) socket.destroy();
    const stranger = await world.mesh.callerAs('web');
    await eventually(() => stranger.client(Echo, { service: 'echo' }).say({ text: 'now' }));
  });

  forEachLane(() => {
    it('T25 one identity cannot take the connections of the others', async () => {
      await using world = await echoWorld({ server: { limits: { maxConnectionsPerPeer: 3 } } });

      const peers = await whileCalling(
        () => world.client.say({ text: 'a' }),
        () => Promise.all(Array.from({ length: 8 }, () => rawPeer(world.mesh, world.service))),
      );

      await eventually(() => assert.equal(peers.filter((peer) => peer.isClosed).length, 5));
      const refused = world.events('handshake-refused');
      assert.deepEqual(
        refused.map(({ reason, peer }) => [reason, peer]),
        Array.from({ length: 5 }, () => ['too-many-connections', world.mesh.id('raw')]),
      );
      for (const peer of peers) peer.socket.destroy();
      await eventually(async () => {
        using next = await rawPeer(world.mesh, world.service);
        await pause(20);
        assert.equal(next.isClosed, false);
      });
    });
  });

  it('T26 a process without file descriptors goes on serving, and accepts again when there are some', async function () {
    if (process.platform === 'win32') this.skip();
    const fixture = fileURLToPath(new URL('../fixtures/crowded-server.js', import.meta.url));
    await using child = start('sh', ['-c', 'ulimit -n 256 && exec "$0" "$@"', process.execPath, fixture]);
    const port = Number((await child.output(/listening (\d+)/))[1]);

    const sockets = Array.from({ length: 400 }, () =>
      createConnection(port, '127.0.0.1')
        .on('error', () => {})
        .resume(),
    );
    // Node accepts and closes what it has no descriptor for; only some systems report it (`accept-failed`).
    await eventually(() => assert.ok(sockets.filter((socket) => socket.closed).length > 100));
    await pause(200);
    for (const socket of sockets) socket.destroy();
    await pause(50);
    const { code, stdout, stderr } = await child.stop();

    const end = JSON.parse(/end (.*)/.exec(stdout)?.[1] ?? '{}');
    assert.deepEqual({ code, failures: end.failures, text: end.text }, { code: 0, failures: 0, text: 'fresh' }, stderr);
    assert.ok(end.calls > 10);
  });
});
