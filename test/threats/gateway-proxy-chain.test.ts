import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { createConnection, type Socket } from 'node:net';
import { httpRoute } from '@sallyport/gateway';
import { type HttpUpstream, httpUpstream } from '../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld } from '../support/gateway/world.js';
import { Flag, FrameType, frame, type HeaderFields, hello, hpack, settingsAck } from '../support/h2-frames.js';
import { startHaproxy } from '../support/servers/haproxy.js';
import { startNginx } from '../support/servers/nginx.js';
import { requireServers, type ServerProgram } from '../support/servers/programs.js';
import type { ReverseProxy, ReverseProxyOptions } from '../support/servers/reverse-proxy.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

const SMUGGLED = 'GET /files/smuggled HTTP/1.1\r\nHost: shop.test\r\nX-Smuggled: yes\r\n\r\n';

/** Requests that hide a second one from a proxy and a server which read differently. */
const attacks: [string, string][] = [
  ['CL.TE', `Content-Length: ${SMUGGLED.length + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
  [
    'TE.CL',
    `Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`,
  ],
  ['TE.TE', `Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n${SMUGGLED}`],
  [
    'an obscured TE',
    `Transfer-Encoding:\x0bchunked\r\nContent-Length: ${SMUGGLED.length + 5}\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  ],
  [
    'TE before a blank',
    `Transfer-Encoding : chunked\r\nContent-Length: ${SMUGGLED.length + 5}\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  ],
  ['two lengths', `Content-Length: 0\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
  ['a length with a sign', `Content-Length: +0\r\n\r\n${SMUGGLED}`],
  ['a chunk of a strange size', `Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n${SMUGGLED}`],
  [
    'a folded TE',
    `Transfer-Encoding:\r\n chunked\r\nContent-Length: ${SMUGGLED.length + 5}\r\n\r\n0\r\n\r\n${SMUGGLED}`,
  ],
  ['a folded length', `Content-Length:\r\n 0\r\n\r\n${SMUGGLED}`],
  ['a fold behind another header', `X-Note: a\r\n Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
  ['a bare carriage return in a header', `X-Note: a\rContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
  ['a bare line feed in a header', `X-Note: a\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
  ['headers that end with bare line feeds', `Content-Length: ${SMUGGLED.length}\n\n${SMUGGLED}`],
  ['a bare line feed behind a chunk', `Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n${SMUGGLED}`],
  ['a bare carriage return behind a chunk', `Transfer-Encoding: chunked\r\n\r\n0;a\r\r\n\r\n${SMUGGLED}`],
  ['an extension of a chunk', `Transfer-Encoding: chunked\r\n\r\n0;a="\r\n\r\n"\r\n\r\n${SMUGGLED}`],
  ['a chunk that is shorter than it says', `Transfer-Encoding: chunked\r\n\r\n3\r\na\r\n0\r\n\r\n${SMUGGLED}`],
  ['a chunk without an end', `Transfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n${SMUGGLED}`],
  ['a length among the trailers', `Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n${SMUGGLED}`],
];

const fields = (...more: HeaderFields): HeaderFields => [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/files/a'],
  [':authority', 'shop.test'],
  ['content-type', 'a/b'],
  ...more,
];
const replaced = (name: string, value: string): HeaderFields =>
  fields().map(([given, before]) => [given, given === name ? value : before]);

/** Requests of HTTP/2 (RFC 9113 section 10.3) that would be two when they are written down as HTTP/1.1. */
const downgrades: [string, HeaderFields, string][] = [
  ['a length of none', fields(['content-length', '0']), SMUGGLED],
  ['a length that is too short', fields(['content-length', '1']), `x${SMUGGLED}`],
  ['TE', fields(['transfer-encoding', 'chunked']), `0\r\n\r\n${SMUGGLED}`],
  ['a line in a value', fields(['x-note', 'a\r\ntransfer-encoding: chunked']), `0\r\n\r\n${SMUGGLED}`],
  ['a line feed in a value', fields(['x-note', 'a\ncontent-length: 0']), SMUGGLED],
  ['a line in a name', fields(['x-note: a\r\ntransfer-encoding', 'chunked']), `0\r\n\r\n${SMUGGLED}`],
  ['a colon in a name', fields(['content-length: 0', 'a']), SMUGGLED],
  ['a request in the path', replaced(':path', `/files/a HTTP/1.1\r\nHost: shop.test\r\n\r\n${SMUGGLED}`), ''],
  ['a request in the method', replaced(':method', `${SMUGGLED}POST`), ''],
  ['a request in the authority', replaced(':authority', `shop.test\r\n\r\n${SMUGGLED}`), ''],
  ['a request in the scheme', replaced(':scheme', `http://shop.test/ HTTP/1.1\r\n\r\n${SMUGGLED}`), ''],
  ['headers of a connection', fields(['connection', 'content-length'], ['content-length', '0']), SMUGGLED],
];

/** The bytes of a client of HTTP/2 that asks once. */
function requestOf(headers: HeaderFields, body: string): Buffer {
  return Buffer.concat([
    hello(),
    settingsAck(),
    frame(FrameType.HEADERS, Flag.END_HEADERS, 1, hpack(headers)),
    frame(FrameType.DATA, Flag.END_STREAM, 1, Buffer.from(body, 'latin1')),
  ]);
}

/** Time for the first byte of an answer, and then silence after which nothing more is expected, ms. */
const FIRST_MS = 2000;
const SETTLE_MS = 300;

/**
 * Sends bytes, and resolves with what came back until the connection was closed, or silent for a while; where it is known what
 * should come, when that has come.
 */
function exchange(socket: Socket, bytes: Uint8Array, wanted?: RegExp): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    socket.setTimeout(wanted ? 5 * FIRST_MS : FIRST_MS, () => socket.destroy());
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      if (wanted?.test(answer)) socket.destroy();
      else if (!wanted) socket.setTimeout(SETTLE_MS);
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
    socket.write(bytes);
  });
}

interface Front {
  readonly name: string;
  readonly program: ServerProgram;
  start(options: ReverseProxyOptions): Promise<ReverseProxy>;
}

const fronts: readonly Front[] = [
  { name: 'nginx', program: 'nginx', start: startNginx },
  { name: 'haproxy', program: 'haproxy', start: startHaproxy },
  {
    name: 'a haproxy that passes on invalid requests',
    program: 'haproxy',
    start: (options) => startHaproxy({ ...options, careless: true }),
  },
];

/** What the service has got. */
interface SeenRequest {
  readonly line: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

function hiddenIn(seen: readonly SeenRequest[]): number {
  return seen.filter(({ headers }) => headers['x-smuggled'] !== undefined).length;
}

function filesWorld(): Promise<GatewayWorld> {
  const options = { upstream: 'files', public: true } as const;
  return gatewayWorld({
    trustedProxies: ['127.0.0.1'],
    routes: [httpRoute('GET', '/files/:name', options), httpRoute('POST', '/files/:name', options)],
  });
}

function filesService({ mesh }: GatewayWorld, seen: SeenRequest[]): Promise<HttpUpstream> {
  return httpUpstream(mesh, async (req, res) => {
    let body = '';
    for await (const chunk of req) body += chunk;
    seen.push({ line: `${req.method} ${req.url}`, headers: req.headers, body });
    res.end(`${req.method} ${req.url}`);
  });
}

for (const front of fronts) {
  describe(`T50 a gateway between ${front.name} and an HTTP service`, function () {
    this.timeout(30_000);
    requireServers(front.program);
    let folder: TemporaryFolder;
    let world: GatewayWorld;
    let service: HttpUpstream;
    let proxy: ReverseProxy;
    const seen: SeenRequest[] = [];

    before(async () => {
      folder = temporaryFolder();
      world = await filesWorld();
      service = await filesService(world, seen);
      proxy = await front.start({ upstreamPort: world.port, ca: folder.write('ca.pem', world.ca), host: 'shop.test' });
    });

    beforeEach(() => {
      seen.length = 0;
    });

    after(async () => {
      await proxy?.[Symbol.asyncDispose]();
      await service?.[Symbol.asyncDispose]();
      await world?.[Symbol.asyncDispose]();
      folder?.[Symbol.dispose]();
    });

    function send(text: string, wanted?: RegExp): Promise<string> {
      return exchange(createConnection(proxy.port, '127.0.0.1'), Buffer.from(text, 'latin1'), wanted);
    }

    function sendHttp2(headers: HeaderFields, body: string, wanted?: RegExp): Promise<string> {
      return exchange(createConnection(proxy.http2Port, '127.0.0.1'), requestOf(headers, body), wanted);
    }

    /** An answer of the service. */
    const ended = /\r\n\r\n[\s\S]*\/files\/\w/;
    const victim = 'GET /files/victim HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n';

    it('answers each client with its own answer', async () => {
      const post =
        'POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: a/b\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello';

      const [a, b] = [await send(post, ended), await send(victim, ended)];
      const c = await sendHttp2(fields(), 'from HTTP/2', /POST \/files\/a/);

      assert.match(a, /^HTTP\/1\.1 200 [\s\S]*POST \/files\/a/);
      assert.match(b, /^HTTP\/1\.1 200 [\s\S]*GET \/files\/victim/);
      assert.match(c, /POST \/files\/a/);
      assert.deepEqual(
        seen.map(({ line, body }) => [line, body]),
        [
          ['POST /files/a', 'hello'],
          ['GET /files/victim', ''],
          ['POST /files/a', 'from HTTP/2'],
        ],
      );
      assert.equal(seen[0]?.headers['x-forwarded-for'], '127.0.0.1');
    });

    for (const [what, rest] of attacks) {
      it(`T50 gives no client the answer of a request that another has hidden by ${what}`, async () => {
        // On a connection of its own, and then a victim that may share the connection between the proxy and the gateway.
        const own = await send(`POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: a/b\r\n${rest}`);
        const answer = await send(victim, ended);

        assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*GET \/files\/victim/);
        // What the proxy has read as the attacker's next request it has answered to the attacker: nothing was hidden from it.
        const pipelined = own.match(/GET \/files\/smuggled/g) ?? [];
        assert.equal(hiddenIn(seen), pipelined.length);
      });
    }

    for (const [what, headers, body] of downgrades) {
      it(`T50 makes one request of HTTP/2 no two of HTTP/1.1, with ${what}`, async () => {
        await sendHttp2(headers, body);
        const answer = await send(victim, ended);

        assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*GET \/files\/victim/);
        assert.equal(hiddenIn(seen), 0);
      });
    }
  });
}

describe('T50 a gateway between a client of HTTP/2 and an HTTP service', () => {
  let world: GatewayWorld;
  let service: HttpUpstream;
  const seen: SeenRequest[] = [];

  before(async () => {
    world = await filesWorld();
    service = await filesService(world, seen);
  });

  beforeEach(() => {
    seen.length = 0;
  });

  after(async () => {
    await service?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  it('writes a request down as one of HTTP/1.1', async () => {
    await exchange(await world.dial({ alpn: 'h2' }), requestOf(fields(), SMUGGLED), /POST \/files\/a/);

    assert.deepEqual(
      seen.map(({ line, body }) => [line, body]),
      [['POST /files/a', SMUGGLED]],
    );
  });

  for (const [what, headers, body] of downgrades) {
    it(`T50 makes one request of HTTP/2 no two of HTTP/1.1, with ${what}`, async () => {
      await exchange(await world.dial({ alpn: 'h2' }), requestOf(headers, body));
      const victim = await world.ask('GET', '/files/victim');

      assert.equal(victim.body, 'GET /files/victim');
      assert.equal(hiddenIn(seen), 0);
    });
  }
});
