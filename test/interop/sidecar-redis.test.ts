import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { join } from 'node:path';
import { eventually } from '../support/eventually.js';
import { requireServers } from '../support/servers/programs.js';
import { ServerProcess } from '../support/servers/server-process.js';
import { type Conversation, localCaller } from '../support/sidecar/conversation.js';
import { idOf, sidecarWorld } from '../support/sidecar/world.js';
import { temporaryFolder } from '../support/temporary-folder.js';

/** A Redis without TLS, passwords or a network: all of that is for the sidecar to give. */
async function redisOn(folder: string) {
  const socket = join(folder, 'redis.sock');
  const process = new ServerProcess({
    program: 'redis-server',
    args: ['--port', '0', '--unixsocket', socket, '--save', '', '--dir', folder],
    folder,
    temporary: folder,
    ready: () =>
      new Promise((resolve) => {
        const probe = connect(socket, () => resolve(true));
        probe.on('error', () => resolve(false)).on('connect', () => probe.destroy());
      }),
  });
  await process.start();
  return { address: `unix:${socket}`, [Symbol.asyncDispose]: () => process.kill() };
}

/** A command in the protocol of Redis (RESP). */
function command(...words: (string | Buffer)[]): Buffer {
  const parts = words.flatMap((word) => [`$${Buffer.byteLength(word)}\r\n`, word, '\r\n']);
  return Buffer.concat([`*${words.length}\r\n`, ...parts].map((part) => Buffer.from(part as string)));
}

function answered(client: Conversation, answer: Buffer | string): Promise<void> {
  return eventually(() => assert.ok(client.bytes().includes(answer)));
}

describe('a real Redis, and a client of it, between two sidecars', () => {
  requireServers('redis-server');

  it('store and find, large values and pipelines included, and hear of what others publish', async () => {
    using folder = temporaryFolder();
    await using redis = await redisOn(folder.path);
    await using world = sidecarWorld();
    const server = await world.start({ inbound: { target: redis.address, protocol: 'tcp' } });
    const [door] = server.sidecar.endpoints;
    assert.ok(door);
    const client = await world.start({
      name: 'web',
      upstreams: {
        redis: {
          protocol: 'tcp',
          listen: '127.0.0.1:0',
          addresses: [`${door.host}:${door.port}`],
          identity: idOf('ledger'),
        },
      },
    });
    const port = client.sidecar.upstreams.redis ?? '';

    using one = await localCaller(port);
    one.socket.write(command('PING'));
    await answered(one, '+PONG\r\n');

    const value = randomBytes(8 * 1024 * 1024);
    using two = await localCaller(port);
    two.socket.write(command('SET', 'large', value));
    await answered(two, '+OK\r\n');
    two.socket.write(command('GET', 'large'));
    await answered(two, value);

    using three = await localCaller(port);
    three.socket.write(Buffer.concat(Array.from({ length: 10_000 }, () => command('INCR', 'count'))));
    await answered(three, ':10000\r\n');

    one.socket.write(command('SUBSCRIBE', 'news'));
    await answered(one, 'subscribe');
    three.socket.write(command('PUBLISH', 'news', 'the gate is open'));
    await answered(one, 'the gate is open');

    three.socket.write(command('QUIT'));
    await three.ended;
  });
});
