import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, RequestListener } from 'node:http';
import { constants } from 'node:http2';
import { Readable } from 'node:stream';
import { eventually } from '../../support/eventually.js';
import { ask, EVERYTHING, h2Caller, mirror, rawCaller, say, webProgram } from '../../support/sidecar/http.js';
import { program } from '../../support/sidecar/program.js';
import { leavesNothingOpen, type SidecarWorld, type Started, sidecarWorld } from '../../support/sidecar/world.js';

const MIB = 1024 * 1024;
/** 1024 by hand. */
const LARGE_BYTES = Number(process.env.SALLYPORT_TRANSFER_MIB ?? 32) * MIB;

interface Stage {
  readonly world: SidecarWorld;
  readonly door: Started;
}

/** A sidecar before this program, taken down with what it stands before. */
async function on(serve: RequestListener, test: (stage: Stage) => Promise<void>, limits = {}): Promise<void> {
  await using app = await webProgram(serve);
  await using world = sidecarWorld();
  const door = await world.start({
    inbound: { target: app.address, protocol: 'http' },
    authorize: EVERYTHING,
    limits,
  });
  await test({ world, door });
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function bytesOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

describe('bodies through the sidecar (HTTP)', () => {
  const large = randomBytes(LARGE_BYTES);

  it('a large body arrives byte for byte, in both directions and versions', async () => {
    await on(
      async (request, response) => {
        const seen = await bytesOf(request);
        response.setHeader('x-hash', hashOf(seen));
        response.end(large);
      },
      async ({ world, door }) => {
        using web = await h2Caller(world, door);

        const byH1 = await ask(world, door, { method: 'POST', body: large });
        const byH2 = await web.ask({ method: 'POST', body: large });

        for (const { status, headers, body } of [byH1, byH2]) {
          assert.equal(status, 200);
          assert.equal(headers['x-hash'], hashOf(large));
          assert.equal(hashOf(body), hashOf(large));
        }
      },
    );
  });

  it('the faster side waits: little is held for a program that does not read', async () => {
    await on(
      (request) => request.pause(),
      async ({ world, door }) => {
        using web = await h2Caller(world, door);
        const stream = web.session.request({ ':method': 'POST', ':path': '/', ':authority': 'x' });
        stream.on('error', () => {});

        for (let i = 0; i < 16; i++) stream.write(Buffer.alloc(MIB));
        await settled(() => web.socket.bytesWritten);

        // What the two sockets of the program hold in the kernel comes on top of our own windows and buffers.
        assert.ok(web.socket.bytesWritten < 12 * MIB, `${web.socket.bytesWritten} bytes were taken`);
        stream.close(constants.NGHTTP2_CANCEL);
        await once(stream, 'close');
      },
    );
  });

  it('the faster side waits: little is held for a caller that does not read', async () => {
    let written = 0;
    await on(
      (_request, response) => {
        const pieces = function* () {
          for (; written < 64 * MIB; written += MIB) yield Buffer.alloc(MIB);
        };
        Readable.from(pieces(), { highWaterMark: 1 }).pipe(response);
      },
      async ({ world, door }) => {
        using web = await rawCaller(world, door);
        web.socket.pause();
        web.socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');

        await settled(() => written);

        assert.ok(written > 0 && written < 32 * MIB, `${written} bytes were taken`);
      },
    );
  });

  it('trailers are passed on in both directions and versions', async () => {
    await on(
      async (request, response) => {
        await bytesOf(request);
        response.writeHead(200, { trailer: 'x-sum' });
        response.write('hello');
        response.addTrailers({ 'x-sum': `of ${request.trailers['x-mine']}` });
        response.end();
      },
      async ({ world, door }) => {
        using web = await h2Caller(world, door);
        const stream = web.session.request(
          { ':method': 'POST', ':path': '/', ':authority': 'x' },
          { waitForTrailers: true },
        );
        stream.once('wantTrailers', () => stream.sendTrailers({ 'x-mine': 'h2', 'x-sallyport-peer': 'spiffe://x/y' }));
        stream.end('body');
        const [trailers] = await once(stream, 'trailers');

        const said = await say(
          world,
          door,
          'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n' +
            '4\r\nbody\r\n0\r\nx-mine: h1\r\n\r\n',
        );

        assert.equal(trailers['x-sum'], 'of h2');
        assert.match(said, /\r\n0\r\nx-sum: of h1\r\n\r\n$/i);
      },
    );
  });

  it('HEAD, 204 and 304 have no body, and the connection goes on', async () => {
    await on(
      (request, response) => {
        if (request.url === '/304') response.writeHead(304, { etag: '"a"' }).end();
        else if (request.url === '/204') response.writeHead(204).end();
        else response.writeHead(200, { 'content-length': '5' }).end(request.method === 'HEAD' ? undefined : 'hello');
      },
      async ({ world, door }) => {
        const said = await say(
          world,
          door,
          ['HEAD /', 'GET /204', 'GET /304'].map((line) => `${line} HTTP/1.1\r\nhost: x\r\n\r\n`).join('') +
            'GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
        );
        using web = await h2Caller(world, door);
        const head = await web.ask({ method: 'HEAD' });
        const none = await web.ask({ path: '/204' });

        assert.deepEqual(said.match(/^HTTP\/1\.1 \d+/gm), [
          'HTTP/1.1 200',
          'HTTP/1.1 204',
          'HTTP/1.1 304',
          'HTTP/1.1 200',
        ]);
        assert.equal(said.split('hello').length, 2);
        assert.deepEqual([head.status, head.headers['content-length'], head.body.length], [200, '5', 0]);
        assert.deepEqual([none.status, none.body.length], [204, 0]);
      },
    );
  });

  it('Expect: 100-continue is the word of the program, and a denied caller never hears it', async () => {
    await using app = await webProgram(mirror);
    app.server.on('checkContinue', (request: IncomingMessage, response) => {
      if (request.url === '/no') response.writeHead(417).end();
      else response.writeContinue();
      if (request.url !== '/no') mirror(request, response);
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });
    const head = (path: string) =>
      `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n`;

    using web = await rawCaller(world, door);
    web.socket.write(head('/yes'));
    await eventually(() => assert.match(web.text(), /^HTTP\/1\.1 100 Continue\r\n\r\n$/));
    web.socket.write('body');
    await eventually(() => assert.match(web.text(), /"body":"body"/));
    using h2 = await h2Caller(world, door);
    const stream = h2.session.request(
      { ':method': 'POST', ':path': '/yes', ':authority': 'x', expect: '100-continue' },
      { endStream: false },
    );
    await once(stream, 'continue');
    const answered = once(stream, 'response');
    stream.end('body');
    const [byH2] = await answered;
    stream.close();
    assert.equal(byH2[':status'], 200);
    const refused = await say(world, door, head('/no'));
    const denied = await say(world, door, head('/a;b'));

    assert.match(refused, /^HTTP\/1\.1 417 [\s\S]*connection: close/i);
    assert.match(denied, /^HTTP\/1\.1 400 [\s\S]*connection: close/i);
  });

  it('an answer that comes before the end of the request is passed on, and the rest is read no further', async () => {
    await on(
      (request, response) => {
        request.pause();
        response.writeHead(413, { 'content-length': '3' }).end('no\n');
      },
      async ({ world, door }) => {
        using web = await h2Caller(world, door);
        const stream = web.session.request({ ':method': 'POST', ':path': '/', ':authority': 'x' });
        const closed = once(stream, 'close');
        stream.write(Buffer.alloc(MIB));
        const [headers] = await once(stream, 'response');
        stream.resume();
        await closed;

        const said = await say(
          world,
          door,
          'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nfirst',
          'no\n',
        );

        assert.equal(headers[':status'], 413);
        assert.match(said, /^HTTP\/1\.1 413 /);
      },
    );
  });

  for (const version of ['h1', 'h2'] as const) {
    it(`a caller that goes away ends the request at the program (${version})`, async () => {
      const gone: string[] = [];
      await on(
        (request, response) => {
          request.resume();
          response.write('begun');
          response.once('close', () => gone.push(`${request.complete}`));
        },
        async ({ world, door }) => {
          if (version === 'h1') {
            using web = await rawCaller(world, door);
            web.socket.write('POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n');
            await eventually(() => assert.match(web.text(), /begun/));
            web.reset();
          } else {
            using web = await h2Caller(world, door);
            const stream = web.session.request({ ':method': 'POST', ':path': '/', ':authority': 'x' });
            stream.on('error', () => {});
            stream.write('half');
            await once(stream, 'data');
            // Node ends the stream well before it resets it.
            stream.close(constants.NGHTTP2_CANCEL);
            await once(stream, 'close');
          }

          await eventually(() => assert.deepEqual(gone, ['false'], 'half a request looked whole, or was not ended'));
        },
      );
    });
  }

  for (const [what, headers] of [
    ['in chunks', {}],
    ['of a known length', { 'content-length': '100' }],
  ] as const) {
    it(`an answer that breaks off never looks whole (${what})`, async () => {
      await on(
        (_request, response) => {
          response.writeHead(200, headers);
          response.write('half');
          setTimeout(() => response.destroy(), 20);
        },
        async ({ world, door }) => {
          using web = await h2Caller(world, door);

          await assert.rejects(ask(world, door), /aborted|ECONNRESET|hang up/);
          await assert.rejects(web.ask(), /NGHTTP2_INTERNAL_ERROR/);
        },
      );
    });
  }

  it('an answer whose end is the end of its connection is whole at a good end, and broken at a reset', async () => {
    await using app = await program((socket) => {
      socket.once('data', (bytes: Buffer) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\nall there is');
        if (bytes.includes('/reset')) setTimeout(() => socket.resetAndDestroy(), 20);
        else socket.end();
      });
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });

    assert.equal(String((await ask(world, door)).body), 'all there is');
    await assert.rejects(ask(world, door, { path: '/reset' }), /aborted|ECONNRESET|hang up/);
  });

  it('an answer that is no HTTP, is in two lengths or in an unknown coding, or breaks as it comes, is a 502', async () => {
    const answers: Readonly<Record<string, string>> = {
      '/garbage': 'SSH-2.0-OpenSSH_9.2p1\r\n',
      '/lengths': 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab',
      '/both': 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      '/coding': 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n',
      '/coding-alone': 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\na',
      '/chunk': 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n',
      '/nothing': '',
      '/switch': 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
    };
    await using app = await program((socket) => {
      socket.once('data', (bytes: Buffer) => {
        const [, path = ''] = bytes.toString().split(' ');
        socket.end(answers[path] ?? 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
      });
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });

    for (const path of Object.keys(answers)) assert.equal((await ask(world, door, { path })).status, 502, path);
    assert.equal((await ask(world, door, { path: '/good' })).status, 200);
  });

  it('leaves no connection and no descriptor open', async () => {
    await on(mirror, async ({ world, door }) => {
      await ask(world, door);
      await leavesNothingOpen(async () => {
        for (let i = 0; i < 5; i++) {
          using web = await h2Caller(world, door);
          await Promise.all(['/a', '/b', '/c'].map((path) => web.ask({ path })));
          await ask(world, door, { method: 'POST', body: 'x' });
        }
      });
      await eventually(() => assert.equal(door.sidecar.connections.inbound, 0));
    });
  });
});

/** Waits until a figure no longer grows. */
async function settled(figure: () => number): Promise<void> {
  let before = -1;
  await eventually(async () => {
    const now = figure();
    await new Promise((resolve) => setTimeout(resolve, 150));
    const isSame = now > 0 && now === before && figure() === now;
    before = now;
    assert.ok(isSame);
  });
}
