import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { start } from '../../support/child.js';
import { eventually } from '../../support/eventually.js';
import { freePort, isListening } from '../../support/free-port.js';
import { converse } from '../../support/sidecar/conversation.js';
import { program } from '../../support/sidecar/program.js';
import { idOf, leavesNoDescriptors, sidecarWorld } from '../../support/sidecar/world.js';

const places = ['door', 'upstream', 'outbound', 'admin'] as const;

describe('the life of a sidecar', () => {
  leavesNoDescriptors();

  for (const taken of places) {
    it(`port conflict: the one of the ${taken} is taken, and all others are released`, async () => {
      await using app = await program();
      await using world = sidecarWorld();
      const squatter = createServer().listen(0, '127.0.0.1');
      await once(squatter, 'listening');
      const ports = Object.fromEntries(await Promise.all(places.map(async (place) => [place, await freePort()])));
      ports[taken] = (squatter.address() as { port: number }).port;
      const at = (place: (typeof places)[number]) => `127.0.0.1:${ports[place]}`;
      const { sidecar } = world.make({
        listen: at('door'),
        inbound: { target: app.address, protocol: 'tcp' },
        outbound: { listen: at('outbound') },
        upstreams: {
          mail: { protocol: 'tcp', listen: at('upstream'), addresses: ['127.0.0.1:9'], identity: idOf('mail') },
          shop: { protocol: 'http', addresses: ['127.0.0.1:9'], identity: idOf('shop') },
        },
        admin: { listen: at('admin') },
      });

      await assert.rejects(sidecar.start(), /another program listens there/);

      assert.equal(sidecar.state, 'stopped');
      for (const place of places) assert.equal(await isListening(ports[place]), place === taken, place);
      squatter.close();
    });
  }

  it('shutdown: twice, before the start, and after a start that failed, is harmless', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const idle = world.make({ inbound: { target: app.address, protocol: 'tcp' } });
    await Promise.all([idle.sidecar.stop(), idle.sidecar.stop()]);
    const started = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    await Promise.all([started.sidecar.stop(), started.sidecar.stop()]);

    assert.deepEqual([idle.sidecar.state, started.sidecar.state], ['stopped', 'stopped']);
    assert.deepEqual(started.sidecar.connections, { inbound: 0, outbound: 0 });
    await assert.rejects(started.sidecar.start(), /was started or stopped before/);
  });

  it('EMFILE recovery: without descriptors it goes on serving, and accepts again when there are some', async function () {
    if (process.platform === 'win32') this.skip();
    const fixture = fileURLToPath(new URL('../../fixtures/crowded-sidecar.js', import.meta.url));
    await using child = start('sh', ['-c', 'ulimit -n 256 && exec "$0" "$@"', process.execPath, fixture], {
      timeoutMs: 25_000,
    });
    const port = Number((await child.output(/listening (\d+)/))[1]);

    const flood = Array.from({ length: 400 }, () => converse(createConnection(port)));
    // Node accepts and closes what it has no descriptor for.
    await eventually(() => assert.ok(flood.filter(({ socket }) => socket.closed).length > 100));
    await child.output(/answered [1-9]/);
    for (const { socket } of flood) socket.destroy();
    await Promise.all(flood.map(({ closed }) => closed));
    const { code, stdout, stderr } = await child.stop();

    const end = JSON.parse(/end (.*)/.exec(stdout)?.[1] ?? '{}');
    assert.deepEqual({ code, ...end }, { code: 0, lost: 0, text: 'fresh' }, stderr);
  });
});
