import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { createConnection } from 'node:net';
import { httpRoute } from '@sallyport/gateway';
import { type HttpUpstream, httpUpstream } from '../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld } from '../support/gateway/world.js';
import { type Nginx, startNginx } from '../support/servers/nginx.js';
import { requireServers } from '../support/servers/programs.js';
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
  ['a bare line feed behind a chunk', `Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n${SMUGGLED}`],
];

describe('T50 a gateway between nginx and an HTTP service', function () {
  this.timeout(30_000);
  requireServers('nginx');
  let folder: TemporaryFolder;
  let world: GatewayWorld;
  let service: HttpUpstream;
  let nginx: Nginx;
  /** What the service has got: requests with their bodies. */
  const seen: { readonly line: string; readonly headers: IncomingMessage['headers']; readonly body: string }[] = [];

  before(async () => {
    folder = temporaryFolder();
    const options = { upstream: 'files', public: true } as const;
    world = await gatewayWorld({
      trustedProxies: ['127.0.0.1'],
      routes: [httpRoute('GET', '/files/:name', options), httpRoute('POST', '/files/:name', options)],
    });
    service = await httpUpstream(world.mesh, async (req, res) => {
      let body = '';
      for await (const chunk of req) body += chunk;
      seen.push({ line: `${req.method} ${req.url}`, headers: req.headers, body });
      res.end(`${req.method} ${req.url}`);
    });
    nginx = await startNginx({ upstreamPort: world.port, ca: folder.write('ca.pem', world.ca), host: 'shop.test' });
  });

  beforeEach(() => {
    seen.length = 0;
  });

  after(async () => {
    await nginx?.[Symbol.asyncDispose]();
    await service?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
    folder?.[Symbol.dispose]();
  });

  /** Bytes to nginx, and what came back until it was silent for a while. */
  function send(text: string): Promise<string> {
    return new Promise((resolve) => {
      let answer = '';
      const socket = createConnection(nginx.port, '127.0.0.1', () => socket.write(text, 'latin1'));
      socket.setTimeout(300, () => socket.destroy());
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1');
      });
      socket.on('error', () => {});
      socket.on('close', () => resolve(answer));
    });
  }

  const victim = 'GET /files/victim HTTP/1.1\r\nHost: shop.test\r\n\r\n';

  it('answers each client with its own answer', async () => {
    const post = 'POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello';

    const [a, b] = [await send(post), await send(victim)];

    assert.match(a, /^HTTP\/1\.1 200 [\s\S]*POST \/files\/a/);
    assert.match(b, /^HTTP\/1\.1 200 [\s\S]*GET \/files\/victim/);
    assert.deepEqual(
      seen.map(({ line, body }) => [line, body]),
      [
        ['POST /files/a', 'hello'],
        ['GET /files/victim', ''],
      ],
    );
    assert.equal(seen[0]?.headers['x-forwarded-for'], '127.0.0.1');
  });

  for (const [what, rest] of attacks) {
    it(`T50 gives no client the answer of a request that another has hidden by ${what}`, async () => {
      // On a connection of its own, and then a victim that may share the connection between nginx and the gateway.
      const own = await send(`POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: a/b\r\n${rest}`);
      const answer = await send(victim);

      assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*GET \/files\/victim/);
      const hidden = seen.filter(({ headers }) => headers['x-smuggled'] !== undefined);
      // What nginx has read as the attacker's next request it has answered to the attacker: nothing was hidden from it.
      const pipelined = own.match(/GET \/files\/smuggled/g) ?? [];
      assert.equal(hidden.length, pipelined.length);
    });
  }
});
