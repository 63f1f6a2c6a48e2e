import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { eventually } from '../support/eventually.js';
import { ask, EVERYTHING, mirror, rawCaller, say, type WebProgram, webProgram } from '../support/sidecar/http.js';
import { type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';

describe('requests that come before the answer to the last one', () => {
  let app: WebProgram;
  let world: SidecarWorld;
  let door: Started;

  beforeEach(async () => {
    app = await webProgram((request, response) => {
      if (request.url !== '/slow') mirror(request, response);
    });
    world = sidecarWorld();
    const limits = { maxRequests: 5 };
    door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING, limits });
  });

  afterEach(async () => {
    await world[Symbol.asyncDispose]();
    await app[Symbol.asyncDispose]();
  });

  it('are all over when their caller goes away, and keep nobody else from the program', async () => {
    for (let round = 0; round < 3; round++) {
      using caller = await rawCaller(world, door);
      caller.socket.write('GET /slow HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(4));
      await eventually(() => assert.equal(app.connections.size, 4));

      caller.reset();

      await eventually(() => assert.equal(app.connections.size, 0));
    }
    assert.equal((await ask(world, door)).status, 200);
  });
});

describe('a request behind the last answer of its connection', () => {
  it('is never run: nobody would get the answer', async () => {
    const asked: string[] = [];
    const slow: ServerResponse[] = [];
    await using app = await webProgram((request, response) => {
      asked.push(request.url ?? '');
      slow.push(response);
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });
    using caller = await rawCaller(world, door);
    caller.socket.write('GET /slow HTTP/1.1\r\nhost: x\r\n\r\n');
    await eventually(() => assert.deepEqual(asked, ['/slow']));

    const stopped = door.sidecar.stop();
    slow[0]?.write('some');
    await eventually(() => assert.match(caller.bytes().toString(), /connection: close.*some/is));
    caller.socket.write('GET /more HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(2));
    await new Promise((resolve) => setTimeout(resolve, 50));
    slow[0]?.end(' more');
    await stopped;

    assert.deepEqual(asked, ['/slow']);
    assert.match(caller.bytes().toString(), / more\r\n0\r\n\r\n$/);
  });
});

describe('a request that expects something else than to go on', () => {
  it('is refused, told of, and the last one on its connection', async () => {
    await using app = await webProgram(mirror);
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });

    const said = await say(world, door, 'GET / HTTP/1.1\r\nhost: x\r\nexpect: more\r\n\r\n'.repeat(2));

    assert.equal(said.match(/^HTTP\/1\.1 417 /gm)?.length, 1, said);
    assert.deepEqual(
      door.events('call-rejected').map(({ detail }) => detail),
      ['expectation-refused: No other expectation is met than 100-continue'],
    );
  });
});
