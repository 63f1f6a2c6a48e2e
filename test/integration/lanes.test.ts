import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { systemClock } from '@sallyport/core/spi';
import { clientOn, type LaneName } from '@sallyport/transport-mtls/spi';
import { allow, CallError, defineContract, exactly, type Service, serverStream, unary } from 'sallyport';
import { IssuedSource, type Mesh, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { eventually } from '../support/eventually.js';
import { rawPeer } from '../support/raw-peer.js';

const Talk = defineContract('test.lanes.v1.Talk', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  wait: unary(z.object({ ms: z.int() }), z.object({ text: z.string() })),
  count: serverStream(z.object({ to: z.int() }), z.object({ n: z.int() })),
});

function talker(world: Mesh, options: Parameters<Mesh['service']>[1] = {}): Service {
  const service = world.service('talker', {
    authorize: [allow({ from: world.id('web'), to: 'test.lanes.v1.Talk/*' })],
    ...options,
  });
  return service.handle(Talk, {
    say: (request) => request,
    async wait({ ms }) {
      await pause(ms);
      return { text: 'waited' };
    },
    async *count({ to }) {
      for (let n = 1; n <= to; n++) {
        yield { n };
        await pause(5);
      }
    },
  });
}

/** Connections of `web` by these lanes, and the events of its side. */
async function poolOf(world: Mesh, lanes: readonly LaneName[]) {
  const events: string[] = [];
  const context = { clock: systemClock, events: { emit: (type: string) => events.push(type) } };
  const identity = world.authority.issue({ id: world.id('web') });
  const tls = await new IssuedSource({ identity, bundlePem: world.authority.bundlePem }).open(context);
  const pool = clientOn(lanes, { connectTimeoutMs: 2000 }).open({ service: 'web', tls, ...context });
  return {
    events,
    async connect(service: Service, key = 'one') {
      const [endpoint] = service.endpoints;
      assert.ok(endpoint);
      const expect = exactly(world.id(service.name));
      const target = { key, instance: key, service: service.name, endpoint, expect };
      return await pool.connect(target, Date.now() + 2000);
    },
    async [Symbol.asyncDispose]() {
      await pool.close();
      tls.close();
    },
  };
}

const request = () => ({ path: '/test.lanes.v1.Talk/say', metadata: undefined, deadlineAt: Date.now() + 60_000 });
const message = Buffer.from('{"text":"hi"}');

const choices: readonly (readonly [server: readonly LaneName[], client: readonly LaneName[], lane: LaneName])[] = [
  [['fast', 'grpc'], ['fast', 'grpc'], 'fast'],
  [['fast', 'grpc'], ['grpc'], 'grpc'],
  [['grpc'], ['fast', 'grpc'], 'grpc'],
  [['fast', 'grpc'], ['fast'], 'fast'],
];

describe('the lanes behind one door', () => {
  for (const [server, client, lane] of choices) {
    it(`lead to ${lane} where the server has ${server.join(' and ')}, the client ${client.join(' and ')}`, async () => {
      await using world = mesh({ lanes: server });
      const service = talker(world);
      await world.start();
      await using pool = await poolOf(world, client);

      const connection = await pool.connect(service);
      const { message: answer } = await connection.unary(request(), message).result;

      assert.equal(connection.lane, lane);
      assert.equal(Buffer.from(answer).toString(), '{"text":"hi"}');
    });
  }

  for (const [server, client] of [
    ['fast', 'grpc'],
    ['grpc', 'fast'],
  ] as const) {
    it(`refuse each other where the server has ${server} alone and the client ${client} alone`, async () => {
      await using world = mesh({ lanes: [server] });
      const service = talker(world);
      const refusals: string[] = [];
      service.on('handshake-refused', ({ reason }) => refusals.push(reason));
      await world.start();
      await using pool = await poolOf(world, [client]);

      await assert.rejects(pool.connect(service), { name: 'CallError', status: 'UNAVAILABLE' });

      assert.deepEqual(pool.events, ['server-identity-refused']);
      assert.deepEqual(refusals, ['alpn']);
    });
  }

  it('serve peers of both lanes on one port at the same time', async () => {
    await using world = mesh();
    const service = talker(world);
    await world.start();
    await using fast = await poolOf(world, ['fast']);
    await using plain = await poolOf(world, ['grpc']);
    const connections = [await fast.connect(service), await plain.connect(service)];

    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, i) => (connections[i % 2] ?? assert.fail()).unary(request(), message).result),
    );

    assert.equal(answers.length, 200);
    assert.deepEqual(connections.map(({ lane }) => lane).sort(), ['fast', 'grpc']);
  });

  it('lose no call when a server drains under load, on the fast lane', async () => {
    await using world = mesh({ lanes: ['fast'] });
    const options = { drain: { spreadMs: 50, graceMs: 15_000 } };
    const [first, second] = [talker(world, options), talker(world, options)];
    await world.start();
    const web = await world.callerAs('web');
    const talk = web.client(Talk, { service: 'talker' });
    const failures: unknown[] = [];
    let calls = 0;
    let stopping = false;
    const callers = Array.from({ length: 16 }, async () => {
      while (!stopping) {
        calls++;
        await talk.say({ text: 'hi' }).catch((error) => failures.push(error));
      }
    });
    const stream = (async () => {
      let last = 0;
      for await (const { n } of talk.count({ to: 40 })) last = n;
      return last;
    })();
    await eventually(() => assert.ok(calls > 100));

    await first.stop();
    stopping = true;
    await Promise.all(callers);

    assert.deepEqual(failures, []);
    assert.equal(await stream, 40);
    assert.equal(second.state, 'ready');
  });

  it('reconnect when the age of a connection is over, without losing a call', async () => {
    await using world = mesh({ lanes: ['fast'] });
    talker(world, { server: { limits: { maxConnectionAgeMs: 60, maxConnectionAgeGraceMs: 1000 } } });
    await world.start();
    const web = await world.callerAs('web');
    const talk = web.client(Talk, { service: 'talker' });
    const until = Date.now() + 400;

    while (Date.now() < until) {
      assert.deepEqual(await Promise.all([talk.say({ text: 'a' }), talk.wait({ ms: 5 })]), [
        { text: 'a' },
        { text: 'waited' },
      ]);
    }
  });

  it('notice a server that has vanished, and fail its calls', async () => {
    await using world = mesh({ lanes: ['fast'] });
    const service = talker(world);
    await world.start();
    const web = await world.callerAs('web');
    const talk = web.client(Talk, { service: 'talker' });
    await talk.say({ text: 'a' });

    const lost = talk.wait({ ms: 5000 }, { deadlineMs: 10_000 });
    const outcome = assert.rejects(lost, (error) => error instanceof CallError && error.status === 'UNAVAILABLE');
    await pause(20);
    await service.stop();

    await outcome;
  });

  it('close a connection without calls after the idle time, whoever it belongs to', async () => {
    await using world = mesh();
    const service = talker(world, {
      server: { limits: { idleTimeoutMs: 150, keepaliveIntervalMs: 1000, keepaliveTimeoutMs: 100 } },
    });
    await world.start();
    await using pool = await poolOf(world, ['fast']);

    const idle = await pool.connect(service);
    using mute = await rawPeer(world, service, { identity: 'web', alpn: 'sallyport-grpc/1' });
    await Promise.race([mute.closed, pause(5000).then(() => assert.fail('still open'))]);

    assert.equal(idle.usable, false);
  });
});
