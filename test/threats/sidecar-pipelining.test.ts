import assert from 'node:assert/strict';
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
