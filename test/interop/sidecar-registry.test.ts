import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { IssuedSource } from '@sallyport/testing';
import { allow, createService, registry, silentLogger } from 'sallyport';
import { eventually } from '../support/eventually.js';
import { ask } from '../support/sidecar/ask.js';
import { idOf, sidecarWorld } from '../support/sidecar/world.js';

interface Greeting {
  readonly text: string;
}

const encode = (greeting: Greeting) => Buffer.from(JSON.stringify(greeting));
const decode = (bytes: Buffer) => JSON.parse(bytes.toString()) as Greeting;

/** What a generator writes. */
const Greeter = {
  hello: {
    path: '/demo.greeter.v1.Greeter/Hello',
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;

/** A stock gRPC server in the clear, which says who it was told has called. */
async function greeter() {
  const server = new Server();
  server.addService(Greeter, {
    hello({ request, metadata }: ServerUnaryCall<Greeting, Greeting>, respond: sendUnaryData<Greeting>) {
      respond(null, { text: `hello ${request.text}, you came as ${metadata.get('x-sallyport-peer')}` });
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    const credentials = ServerCredentials.createInsecure();
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return { address: `127.0.0.1:${port}`, [Symbol.dispose]: () => server.forceShutdown() };
}

describe('a program behind its sidecar, found in the registry', () => {
  it('is called by a client of the SDK, which knows nothing of the sidecar', async () => {
    using app = await greeter();
    await using world = sidecarWorld();
    const shared = registry.memory();
    const door = await world.start({
      name: 'greeter',
      registry: shared,
      inbound: { target: app.address, protocol: 'grpc' },
      authorize: [allow({ from: idOf('web'), to: 'demo.greeter.v1.Greeter/Hello' })],
    });
    const services = ['web', 'stranger'].map((name) =>
      createService({
        name,
        version: '1.0.0',
        tls: new IssuedSource(world.issue(name)),
        registry: shared,
        logger: silentLogger,
      }),
    );
    const [web, stranger] = services.map((service) => service.client(Greeter, { service: 'greeter' }));
    for (const service of services) await service.start();

    try {
      assert.deepEqual(await web?.hello({ text: 'you' }), { text: `hello you, you came as ${idOf('web')}` });
      await assert.rejects(async () => await stranger?.hello({ text: 'me' }), { status: 'PERMISSION_DENIED' });
      await door.sidecar.stop();
      await assert.rejects(async () => await web?.hello({ text: 'you' }), { status: 'UNAVAILABLE' });
    } finally {
      for (const service of services) await service.stop();
    }
  });

  it('is called by name through the sidecar of another program, by HTTP, and by another instance when one has gone', async () => {
    const apps = await Promise.all(
      ['first', 'second'].map(async (name) => {
        const app = createServer((_, response) => response.end(name)).listen(0, '127.0.0.1');
        await once(app, 'listening');
        return app;
      }),
    );
    await using world = sidecarWorld();
    const shared = registry.memory();
    const doors = [];
    for (const app of apps) {
      const { port } = app.address() as AddressInfo;
      doors.push(
        await world.start({
          name: 'shop',
          registry: shared,
          inbound: { target: `127.0.0.1:${port}`, protocol: 'http' },
          authorize: [allow({ from: idOf('web'), to: 'GET /news' })],
          drain: { spreadMs: 50, graceMs: 100 },
        }),
      );
    }
    const web = await world.start({
      name: 'web',
      registry: shared,
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { shop: { protocol: 'http', service: 'shop' } },
    });
    const get = () => ask('h1', web.sidecar.upstreams.shop ?? '', { host: 'shop', path: '/news' });

    const heard = new Set<string>();
    await eventually(async () => {
      heard.add((await get()).text);
      assert.equal(heard.size, 2);
    });
    await doors[0]?.sidecar.stop();

    for (let n = 0; n < 10; n++) assert.deepEqual([(await get()).status, (await get()).text], [200, 'second']);
    for (const app of apps) {
      app.closeAllConnections();
      app.close();
    }
  });
});
