import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { status as GrpcStatus, Server, ServerCredentials } from '@grpc/grpc-js';
import {
  CallError,
  type InstanceRecord,
  type Registry,
  type RegistrySession,
  registry,
  type StatusName,
} from '@sallyport/core';
import type { SidecarOptions } from '@sallyport/sidecar';
import { eventually } from '../../support/eventually.js';
import { contextOf } from '../../support/registry-context.js';
import { localCaller } from '../../support/sidecar/conversation.js';
import { echo, type Program, program } from '../../support/sidecar/program.js';
import { idOf, type SidecarWorld, sidecarWorld } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

interface Place extends AsyncDisposable {
  readonly world: SidecarWorld;
  readonly registry: Registry;
  /** Options of a sidecar with this program, which is looked at often. */
  before(app: Program): Partial<SidecarOptions>;
  /** What callers find. */
  found(): Promise<readonly InstanceRecord[]>;
}

const registries: Readonly<Record<string, (folder: string) => Registry>> = {
  memory: () => registry.memory(),
  local: (folder) => registry.local({ directory: join(folder, 'registry') }),
};

async function place(make: (folder: string) => Registry): Promise<Place> {
  const folder = temporaryFolder();
  const world = sidecarWorld();
  const shared = make(folder.path);
  const reader: RegistrySession = await shared.open(contextOf('reader'));
  return {
    world,
    registry: shared,
    before: (app) => ({
      registry: shared,
      inbound: { target: app.address, protocol: 'tcp', check: { intervalMs: 20 } },
      drain: { spreadMs: 100, graceMs: 200 },
    }),
    found: () => reader.list('ledger'),
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await reader.close();
      folder[Symbol.dispose]();
    },
  };
}

function portOf(app: Program): number {
  return Number(app.address.split(':')[1]);
}

for (const [kind, make] of Object.entries(registries)) {
  describe(`a program in the ${kind} registry`, () => {
    it('is found with the door of its sidecar, its identity, protocol, version and zone', async () => {
      await using at = await place(make);
      await using app = await program();

      const { sidecar } = await at.world.start({
        ...at.before(app),
        version: '1.2.0',
        metadata: { team: 'money' },
        zone: 'a',
        weight: 50,
      });

      const [record, ...others] = await at.found();
      assert.deepEqual(others, []);
      assert.match(record?.id ?? '', /^ledger-[0-9a-f-]{36}$/);
      assert.deepEqual(
        { ...record, id: '' },
        {
          id: '',
          service: 'ledger',
          version: '1.2.0',
          endpoints: sidecar.endpoints,
          identity: idOf('ledger'),
          metadata: { protocol: 'tcp', team: 'money' },
          weight: 50,
          zone: 'a',
          state: 'ready',
          contracts: [],
        },
      );
    });

    it('is called by whoever finds it there', async () => {
      await using at = await place(make);
      await using app = await program();
      await at.world.start(at.before(app));
      const web = await at.world.start({
        name: 'web',
        registry: at.registry,
        upstreams: { books: { protocol: 'tcp', listen: '127.0.0.1:0', service: 'ledger' } },
      });

      using local = await localCaller(web.sidecar.upstreams.books ?? '');
      local.socket.end('hello');
      await local.ended;

      assert.equal(local.text(), 'hello');
    });

    it('is not there before the program is, and is as soon as it runs', async () => {
      await using at = await place(make);
      await using app = await program();
      await app.stop();
      const { events } = await at.world.start(at.before(app));
      assert.deepEqual(await at.found(), []);

      await using _late = await program(echo, portOf(app));

      await eventually(async () => assert.equal((await at.found())[0]?.state, 'ready'));
      assert.equal(events('instance-registered').length, 1);
    });

    it('gets no calls while it is down, and gets them again when it is back', async () => {
      await using at = await place(make);
      await using app = await program();
      await at.world.start(at.before(app));

      await app.stop();
      await eventually(async () => assert.equal((await at.found())[0]?.state, 'starting'));
      await using _again = await program(echo, portOf(app));
      await eventually(async () => assert.equal((await at.found())[0]?.state, 'ready'));
    });

    it('drains in the registry first, while its door still serves, and is gone then', async () => {
      await using at = await place(make);
      await using app = await program();
      const door = await at.world.start(at.before(app));

      const stopped = door.sidecar.stop();
      await eventually(async () => assert.equal((await at.found())[0]?.state, 'draining'));
      using late = await at.world.call(door);
      late.socket.end('hello');
      await late.ended;
      assert.equal(late.text(), 'hello');
      await stopped;

      assert.deepEqual(await at.found(), []);
      assert.equal(door.events('instance-deregistered').length, 1);
    });

    it('starts without a registry, serves whoever knows its door, and is found as soon as the registry is there', async () => {
      await using at = await place(make);
      await using app = await program();
      const away = failing(at.registry, 'UNAVAILABLE');
      const door = await at.world.start({ ...at.before(app), registry: away });
      using web = await at.world.call(door);
      web.socket.write('hello');
      await eventually(() => assert.equal(web.text(), 'hello'));
      assert.deepEqual(await at.found(), []);

      away.with = undefined;

      await eventually(async () => assert.equal((await at.found())[0]?.state, 'ready'));
    });

    it('does not start where the registry refuses it, and leaves nothing behind', async () => {
      await using at = await place(make);
      await using app = await program();
      const { sidecar } = at.world.make({ ...at.before(app), registry: failing(at.registry, 'PERMISSION_DENIED') });

      await assert.rejects(sidecar.start(), { status: 'PERMISSION_DENIED' });

      assert.equal(sidecar.state, 'stopped');
      assert.deepEqual(await at.found(), []);
    });
  });
}

/** The same registry, in which nobody can register for as long as `with` says why. */
function failing(shared: Registry, reason: StatusName): Registry & { with: StatusName | undefined } {
  const made: Registry & { with: StatusName | undefined } = {
    ...shared,
    with: reason,
    async open(context) {
      const session = await shared.open(context);
      const register = async (record: InstanceRecord) => {
        if (made.with) throw new CallError(made.with, 'failing on purpose');
        await session.register(record);
      };
      return new Proxy(session, {
        get(target, name) {
          if (name === 'register') return register;
          const member: unknown = Reflect.get(target, name, target);
          return typeof member === 'function' ? member.bind(target) : member;
        },
      });
    },
  };
  return made;
}

/** A program that speaks HTTP/1.1. */
async function webProgram(answer: RequestListener) {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

describe('the health of a program', () => {
  it('is what a GET says: 200 to 399 is well, anything else is not', async () => {
    let status = 503;
    const asked: (string | undefined)[] = [];
    await using app = await webProgram((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      response.writeHead(status).end('a long story');
    });
    await using world = sidecarWorld();
    const check = { kind: 'http', path: '/health?deep', intervalMs: 20 } as const;
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp', check } });

    assert.deepEqual(door.sidecar.readiness.reasons, ['the program cannot be reached: GET /health?deep answers 503']);
    status = 204;
    await eventually(() => assert.equal(door.sidecar.readiness.ready, true));
    assert.equal(asked[0], 'GET /health?deep');
  });

  it('is not there where the program answers in another protocol, and looked for again', async () => {
    let answer = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n';
    await using app = await program((socket) => socket.once('data', () => socket.write(answer)));
    await using world = sidecarWorld();
    const check = { kind: 'http', path: '/', intervalMs: 20 } as const;
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp', check } });

    assert.deepEqual(door.sidecar.readiness.reasons, ['the program cannot be reached: GET / is not answered']);
    answer = 'HTTP/1.1 204 No Content\r\n\r\n';
    await eventually(() => assert.equal(door.sidecar.readiness.ready, true));
  });

  it('is what grpc.health.v1 says of the service that is named', async () => {
    let answer: Buffer | undefined = Buffer.from([0x08, 2]);
    const asked: string[] = [];
    const app = new Server();
    const bytes = (value: Buffer) => value;
    const rpc = { requestStream: false, responseStream: false } as const;
    const codec = {
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    };
    app.addService(
      { check: { path: '/grpc.health.v1.Health/Check', ...rpc, ...codec } },
      {
        check: ({ request }: { request: Buffer }, done: (error: object | null, value?: Buffer) => void) => {
          asked.push(request.subarray(2).toString());
          if (answer) done(null, answer);
          else done({ code: GrpcStatus.NOT_FOUND, details: 'no such service' });
        },
      },
    );
    const port = await new Promise<number>((resolve, reject) =>
      app.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    await using world = sidecarWorld();
    const check = { kind: 'grpc', service: 'shop.v1.Orders', intervalMs: 20 } as const;
    const door = await world.start({ inbound: { target: `127.0.0.1:${port}`, protocol: 'tcp', check } });
    const reason = () => door.sidecar.readiness.reasons.join();

    assert.match(reason(), /says that it is not serving/);
    answer = Buffer.from([0x08, 1]);
    await eventually(() => assert.equal(door.sidecar.readiness.ready, true));
    answer = undefined;
    await eventually(() => assert.match(reason(), /answers with gRPC status 5/));
    assert.equal(asked[0], 'shop.v1.Orders');

    await door.sidecar.stop();
    app.forceShutdown();
  });

  it('changes only after as many looks as the options want', async () => {
    const answers = [200, 500, 200, 500, 500, 500];
    await using app = await webProgram((_, response) => response.writeHead(answers.shift() ?? 500).end());
    await using world = sidecarWorld();
    const check = { kind: 'http', intervalMs: 10, unhealthyAfter: 3 } as const;
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp', check } });

    await eventually(() => assert.equal(door.events('program-state').at(-1)?.state, 'down'));

    assert.deepEqual(answers, []);
    assert.deepEqual(
      door.events('program-state').map(({ state }) => state),
      ['up', 'down'],
    );
  });

  it('is bad when nothing is answered in time', async () => {
    await using app = await program(() => {});
    await using world = sidecarWorld();
    for (const check of [
      { kind: 'http', timeoutMs: 50 },
      { kind: 'grpc', timeoutMs: 50 },
    ] as const) {
      const { sidecar } = await world.start({ inbound: { target: app.address, protocol: 'tcp', check } });
      assert.match(sidecar.readiness.reasons.join(), /no answer within 50 ms/);
    }
  });
});
