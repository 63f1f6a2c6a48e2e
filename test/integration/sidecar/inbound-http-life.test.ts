import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants } from 'node:http2';
import type { Socket } from 'node:net';
import { rules } from '@sallyport/core';
import type { SidecarLimits } from '@sallyport/sidecar';
import { WebSocket, WebSocketServer } from 'ws';
import { eventually } from '../../support/eventually.js';
import {
  ask,
  callerOptions,
  EVERYTHING,
  h2Caller,
  mirror,
  rawCaller,
  say,
  webProgram,
} from '../../support/sidecar/http.js';
import { program } from '../../support/sidecar/program.js';
import { idOf, leavesNothingOpen, type SidecarWorld, type Started, sidecarWorld } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

function begin(_request: IncomingMessage, response: ServerResponse): void {
  response.write('begun');
}

function open(world: SidecarWorld, target: string, limits: SidecarLimits = {}): Promise<Started> {
  // Looks of its own would be among the connections that are counted.
  const check = { intervalMs: 60_000 };
  return world.start({ inbound: { target, protocol: 'http', check }, authorize: EVERYTHING, limits });
}

describe('requests under way (HTTP)', () => {
  it('end when the rules change and their caller may not any more; those of others go on', async () => {
    using folder = temporaryFolder();
    const rule = (name: string, to: string) => ({ name, effect: 'allow', from: idOf('web'), to });
    const write = (...written: object[]) => folder.write('rules.json', JSON.stringify({ version: 1, rules: written }));
    const file = write(rule('a', 'GET /a'), rule('b', 'GET /b'));
    await using app = await webProgram(begin);
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'http' },
      authorize: rules.fromFile(file, { pollMs: 20 }),
    });
    using web = await h2Caller(world, door);
    using raw = await rawCaller(world, door);
    raw.socket.write('GET /b HTTP/1.1\r\nhost: x\r\n\r\n');
    const [a, b] = ['/a', '/b'].map((path) => web.session.request({ ':path': path, ':authority': 'x' }));
    assert.ok(a && b);
    for (const stream of [a, b]) stream.on('error', () => {}).resume();
    await Promise.all([once(a, 'response'), once(b, 'response'), eventually(() => assert.match(raw.text(), /begun/))]);

    write(rule('a', 'GET /a'));
    await Promise.all([once(b, 'close'), Promise.race([raw.ended, raw.closed])]);

    assert.equal(b.rstCode, constants.NGHTTP2_CANCEL);
    assert.ok(!raw.text().endsWith('0\r\n\r\n'));
    assert.ok(!a.destroyed);
    assert.equal((await web.ask({ path: '/b' })).status, 403);
    await eventually(() => assert.equal(app.connections.size, 1), 3000);
    a.close();
  });

  it('end with their program: 503 while it is down, and served when it is back', async () => {
    await using app = await webProgram(mirror);
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'http', check: { intervalMs: 20 } },
      authorize: EVERYTHING,
    });
    using web = await h2Caller(world, door);
    assert.equal((await web.ask()).status, 200);

    await app.stop();
    const down = await web.ask();
    await eventually(() => assert.equal(door.sidecar.readiness.ready, false));
    app.server.listen(Number(app.address.split(':')[1]), '127.0.0.1');
    await eventually(async () => assert.equal((await web.ask()).status, 200));

    assert.equal(down.status, 503);
    assert.match(down.body.toString(), /"code"|upstream-unreachable/);
    assert.ok(!down.body.includes('127.0.0.1') && !down.body.includes('ECONN'), 'it tells what is inside');
  });

  it('that get no answer in time are a 504, and those that rest in the middle are broken off', async () => {
    await using app = await webProgram((request, response) => {
      if (request.url === '/rests') response.write('begun');
    });
    await using world = sidecarWorld();
    const door = await open(world, app.address, { requestIdleTimeoutMs: 100 });
    using web = await h2Caller(world, door);

    assert.equal((await web.ask({ path: '/mute' })).status, 504);
    assert.equal((await ask(world, door, { path: '/mute' })).status, 504);
    await assert.rejects(web.ask({ path: '/rests' }), /INTERNAL_ERROR/);
    await assert.rejects(ask(world, door, { path: '/rests' }), /aborted|ECONNRESET|hang up/);
  });

  it('that go on for ever end all the same', async () => {
    await using app = await webProgram((_request, response) => {
      const drip = setInterval(() => response.write('.'), 10);
      response.once('close', () => clearInterval(drip));
    });
    await using world = sidecarWorld();
    const door = await open(world, app.address, { requestTimeoutMs: 200 });

    await assert.rejects(ask(world, door), /aborted|ECONNRESET|hang up/);
  });

  it('are finished while the sidecar drains, and callers are told to go elsewhere', async () => {
    await using app = await webProgram((_request, response) => {
      setTimeout(() => response.end('done'), 150);
    });
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'http' },
      authorize: EVERYTHING,
      drain: { spreadMs: 1, graceMs: 5000 },
    });
    using web = await h2Caller(world, door);
    const goaway = once(web.session, 'goaway');
    using idle = await rawCaller(world, door);
    using raw = await rawCaller(world, door);
    raw.socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    const [byH2, byH1] = [web.ask(), ask(world, door)];
    await eventually(() => assert.equal(app.accepted >= 3, true));

    const stopped = door.sidecar.stop();
    await Promise.all([goaway, idle.ended, raw.ended]);

    assert.equal(String((await byH2).body), 'done');
    assert.equal(String((await byH1).body), 'done');
    assert.match(raw.text(), /connection: close[\s\S]*done/i);
    await stopped;
  });
});

describe('connections to the program (HTTP)', () => {
  it('are kept for the next request of the same caller, and closed when it goes or rests', async () => {
    await using app = await webProgram(mirror);
    await using world = sidecarWorld();
    const door = await open(world, app.address);
    const before = app.accepted;
    {
      using web = await h2Caller(world, door);
      for (let i = 0; i < 5; i++) assert.equal((await web.ask()).status, 200);

      assert.equal(app.accepted, before + 1);
      await eventually(() => assert.equal(app.connections.size, 0));
      assert.equal((await web.ask()).status, 200);
    }
    await eventually(() => assert.equal(app.connections.size, 0));
  });

  it('that are kept do not hurry the next answer', async () => {
    await using app = await webProgram((request, response) => {
      setTimeout(() => response.end('done'), request.url === '/slow' ? 1500 : 0);
    });
    await using world = sidecarWorld();
    const door = await open(world, app.address);
    using web = await h2Caller(world, door);

    await web.ask();
    const slow = await web.ask({ path: '/slow' });

    assert.equal(String(slow.body), 'done');
    assert.equal(app.accepted, 2, 'the one that looked whether it is there, and one for both requests');
  });

  it('that the program ends between two requests do no harm', async () => {
    const requests: string[] = [];
    await using app = await program((socket: Socket) => {
      let count = 0;
      socket.on('data', (bytes: Buffer) => {
        const [line = ''] = bytes.toString().split('\r\n');
        requests.push(line);
        // The second request on a connection finds it at its end.
        if (++count === 1 && !line.startsWith('POST')) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
        else socket.destroy();
      });
    });
    await using world = sidecarWorld();
    const door = await open(world, app.address);
    using web = await h2Caller(world, door);

    const first = await web.ask();
    const again = await web.ask();
    const changing = await web.ask({ method: 'POST', path: '/pay', body: 'x' });

    assert.deepEqual([first.status, again.status], [200, 200]);
    // Nobody knows whether the program has acted upon it.
    assert.equal(changing.status, 502);
    assert.equal(requests.filter((line) => line.startsWith('POST')).length, 1);
  });
});

describe('WebSocket before the program', () => {
  interface Room extends AsyncDisposable {
    readonly address: string;
    readonly server: WebSocketServer;
    readonly peers: readonly (string | undefined)[];
  }

  async function room(): Promise<Room> {
    const web = await webProgram((request, response) =>
      response.writeHead(request.url === '/no' ? 404 : 426).end('no'),
    );
    const server = new WebSocketServer({ server: web.server, path: '/chat' });
    const peers: (string | undefined)[] = [];
    server.on('connection', (socket, request) => {
      peers.push(request.headers['x-sallyport-peer'] as string | undefined);
      socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
      socket.on('error', () => {});
    });
    return {
      address: web.address,
      server,
      peers,
      async [Symbol.asyncDispose]() {
        for (const client of server.clients) client.terminate();
        server.close();
        await web.stop();
      },
    };
  }

  function join(world: SidecarWorld, door: Started, path = '/chat', name = 'web'): WebSocket {
    const options = callerOptions(world, door, name);
    return new WebSocket(`wss://${options.host}:${options.port}${path}`, options);
  }

  it('passes messages in both directions, small and large, and the program learns who calls', async () => {
    await using app = await room();
    await using world = sidecarWorld();
    const door = await open(world, app.address);
    const large = Buffer.alloc(4 * 1024 * 1024, 5);

    await leavesNothingOpen(async () => {
      const web = join(world, door);
      await once(web, 'open');
      for (const message of ['hello', large]) {
        web.send(message);
        const [data] = (await once(web, 'message')) as [Buffer];
        assert.ok(data.equals(Buffer.from(message)));
      }
      web.close(4000, 'bye');
      const [code] = await once(web, 'close');
      assert.equal(code, 4000);
    });

    assert.deepEqual(app.peers, [idOf('web')]);
  });

  it('is authorized as its request is, and passes on what the program answers instead', async () => {
    await using app = await room();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'http' },
      authorize: [{ effect: 'allow', from: [idOf('web'), idOf('app')], to: ['GET /chat', 'GET /no'] }],
    });
    const refusal = async (path: string, name: string) => {
      const one = join(world, door, path, name);
      const [error] = (await once(one, 'error')) as [Error];
      return error.message;
    };

    assert.match(await refusal('/other', 'web'), /403/);
    assert.match(await refusal('/chat', 'guest'), /403/);
    assert.match(await refusal('/no', 'web'), /400|404/);
    assert.equal(app.peers.length, 0);
    const app2 = join(world, door, '/chat', 'app');
    await once(app2, 'open');
    app2.terminate();
  });

  it('ends when the rules change, when it rests for too long, and when the program dies', async () => {
    using folder = temporaryFolder();
    const written = (from: string) =>
      JSON.stringify({ version: 1, rules: [{ name: 'a', effect: 'allow', from: idOf(from), to: 'GET /chat' }] });
    const file = folder.write('rules.json', written('web'));
    await using app = await room();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'http' },
      authorize: rules.fromFile(file, { pollMs: 20 }),
    });
    const quick = await open(world, app.address, { idleTimeoutMs: 200 });
    const joined = async (at: Started) => {
      const one = join(world, at);
      one.on('error', () => {});
      await once(one, 'open');
      return one;
    };

    const idle = await joined(quick);
    const [code] = await once(idle, 'close');
    const orphan = await joined(door);
    for (const client of app.server.clients) client.terminate();
    const [orphaned] = await once(orphan, 'close');
    const judged = await joined(door);
    folder.write('rules.json', written('somebody-else'));
    const [cut] = await once(judged, 'close');

    assert.deepEqual([code, orphaned, cut], [1006, 1006, 1006]);
    await eventually(() => assert.equal(app.server.clients.size, 0));
    assert.equal(door.events('call-denied').length, 1);
  });

  it('gives the bytes that came with the request to the program', async () => {
    await using app = await program((socket: Socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst ');
        socket.on('data', (bytes: Buffer) => socket.write(`heard ${bytes}`));
      });
    });
    await using world = sidecarWorld();
    const door = await open(world, app.address);

    const said = await say(
      world,
      door,
      'GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\nearly',
      'heard early',
    );

    assert.match(said, /^HTTP\/1\.1 101 Switching Protocols\r\n[\s\S]*\r\n\r\nfirst heard early$/);
  });
});
