import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { exactly, InsecureConfigurationError, memberOf } from '@sallyport/core';
import { anyOf, apiKey, type HttpRouteOptions, httpRoute, newApiKey, type Route } from '@sallyport/gateway';
import { eventually } from '../support/eventually.js';
import { cancelledUpload } from '../support/gateway/cancelled-upload.js';
import { httpUpstream, rawUpstream } from '../support/gateway/http-upstream.js';
import { type GatewayWorld, type GatewayWorldOptions, gatewayWorld } from '../support/gateway/world.js';
import { freePorts } from '../support/servers/ports.js';

const files = (more: Partial<HttpRouteOptions> = {}) => ({ upstream: 'files', public: true, ...more }) as const;

const routes: readonly Route[] = [
  httpRoute('GET', '/files/:name', files()),
  httpRoute('POST', '/files/:name', files({ maxBodyBytes: 1000 })),
  httpRoute('PUT', '/files/:name', files({ maxBodyBytes: 50_000_000 })),
  httpRoute('GET', '/open/:name', files({ passes: ['authorization', 'cookie'] })),
];

function proxied(options: GatewayWorldOptions = {}): Promise<GatewayWorld> {
  return gatewayWorld({ routes, ...options });
}

async function textOf(incoming: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of incoming) text += chunk;
  return text;
}

describe('an HTTP service behind the gateway', () => {
  it('gets the request and answers it, over mutual TLS', async () => {
    await using world = await proxied();
    const seen: string[] = [];
    await using _service = await httpUpstream(world.mesh, async (req, res) => {
      seen.push(`${req.method} ${req.url} ${req.headers.host?.split(':')[0]} ${await textOf(req)}`);
      res.writeHead(201, { 'content-type': 'text/plain', etag: '"7"', 'cache-control': 'max-age=60' }).end('done');
    });

    const answer = await world.ask('POST', '/files/a%20b?x=1&x=2&y=%26', {
      headers: { 'content-type': 'text/plain' },
      body: 'hello',
    });

    assert.deepEqual(seen, ['POST /files/a%20b?x=1&x=2&y=%26 127.0.0.1 hello']);
    assert.deepEqual([answer.status, answer.body], [201, 'done']);
    assert.equal(answer.headers.etag, '"7"');
    assert.equal(answer.headers['cache-control'], 'max-age=60');
    assert.equal(answer.headers['x-content-type-options'], 'nosniff');
  });

  it('is reached over HTTP/2 too', async () => {
    await using world = await proxied();
    await using _service = await httpUpstream(world.mesh, async (req, res) => res.end(await textOf(req)));
    const session = connectHttp2(`https://127.0.0.1:${world.port}`, { ca: world.ca, servername: 'shop.test' });
    const stream = session.request({ ':method': 'POST', ':path': '/files/a', ':authority': 'shop.test' });
    stream.end('hello');

    let body = '';
    for await (const chunk of stream) body += chunk;
    session.close();

    assert.equal(body, 'hello');
  });

  it('T51 sees what the gateway knows of the client, and nothing that the client claims', async () => {
    await using world = await proxied();
    let seen: IncomingHttpHeaders = {};
    await using _service = await httpUpstream(world.mesh, (req, res) => {
      seen = req.headers;
      res.end();
    });

    await world.raw(
      [
        'GET /files/a HTTP/1.1',
        'Host: shop.test',
        'X-User: root',
        'X-Forwarded: root',
        'Client-IP: 6.6.6.6',
        'X-Groups: admins',
        'X-Ms-Client-Principal-Id: root',
        'X-Goog-Authenticated-User-Email: root',
        'X-Amzn-Oidc-Identity: root',
        'X-Middleware-Subrequest: middleware',
        'x_user: root',
        'X-Forwarded-For: 6.6.6.6',
        'X-Forwarded-Host: evil.test',
        'X-Forwarded-Client-Cert: By=spiffe://evil',
        'X-Real-IP: 6.6.6.6',
        'X-Original-URL: /admin',
        'grpc-metadata-user: root',
        'X-Sallyport-User: root',
        'Connection: close, X-Identity',
        'X-Identity: root',
        'TE: trailers',
        'Keep-Alive: timeout=5',
        'Authorization: Bearer of-the-gateway',
        'Cookie: session=of-the-gateway',
        'Traceparent: nonsense',
        'X-Harmless: yes',
        '\r\n',
      ].join('\r\n'),
    );

    const { host: _host, 'x-request-id': id, connection: _connection, ...rest } = seen;
    assert.deepEqual(rest, {
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': 'shop.test',
      'x-forwarded-proto': 'https',
      'x-harmless': 'yes',
    });
    assert.match(String(id), /^[0-9a-f-]{36}$/);
  });

  it('T51 sees no API key, whichever route of the gateway it is for', async () => {
    const { key, record } = newApiKey();
    const auth = anyOf(apiKey([record], { header: 'x-shop-key' }), apiKey([record]));
    await using world = await proxied({
      routes: [...routes, httpRoute('GET', '/guarded/:name', { upstream: 'files', auth })],
    });
    const seen: IncomingHttpHeaders[] = [];
    await using _service = await httpUpstream(world.mesh, (req, res) => {
      seen.push(req.headers);
      res.end();
    });

    const headers = { 'x-api-key': key, 'x-shop-key': key };
    const answers = [
      await world.ask('GET', '/guarded/a', { headers }),
      await world.ask('GET', '/files/a', { headers }),
    ];

    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    );
    assert.equal(seen.length, 2);
    assert.doesNotMatch(JSON.stringify(seen), new RegExp(key));
  });

  it('sees credentials of the client where the route says so, without the cookies of the gateway', async () => {
    await using world = await proxied();
    let seen: IncomingHttpHeaders = {};
    await using _service = await httpUpstream(world.mesh, (req, res) => {
      seen = req.headers;
      res.setHeader('set-cookie', [
        'a=1; Path=/; Domain=shop.test; HttpOnly',
        '__Host-session=stolen; Secure; Path=/',
        'b=2; secure',
      ]);
      res.end();
    });

    const headers = { authorization: 'Bearer 7', cookie: 'a=1; __Host-session=7; b=2' };
    const passed = await world.ask('GET', '/open/a', { headers });
    const { authorization, cookie } = seen;
    const plain = await world.ask('GET', '/files/a', { headers });

    assert.deepEqual([authorization, cookie], ['Bearer 7', 'a=1; b=2']);
    assert.deepEqual(passed.headers['set-cookie'], ['a=1; Path=/; HttpOnly; Secure', 'b=2; Secure']);
    assert.deepEqual([seen.authorization, seen.cookie, plain.headers['set-cookie']], [undefined, undefined, undefined]);
  });

  it('T51 decides nothing that is the gateway’s: origins, identities, hosts', async () => {
    await using world = await proxied();
    await using service = await httpUpstream(world.mesh, (req, res) => {
      res.writeHead(302, {
        'access-control-allow-origin': '*',
        'access-control-allow-credentials': 'true',
        'strict-transport-security': 'max-age=0',
        'x-user': 'root',
        server: 'secret/1.0',
        'x-powered-by': 'secret',
        connection: 'x-internal',
        'x-internal': 'yes',
        location: `https://${req.headers.host}/files/b?x=1`,
        vary: 'Accept',
      });
      res.end();
    });

    const { headers } = await world.ask('GET', '/files/a');

    for (const name of ['access-control-allow-origin', 'x-user', 'server', 'x-powered-by', 'x-internal']) {
      assert.equal(headers[name], undefined, name);
    }
    assert.equal(headers['strict-transport-security'], 'max-age=31536000');
    assert.equal(headers.location, '/files/b?x=1');
    assert.equal(headers.vary, 'Origin, Accept');
    assert.doesNotMatch(JSON.stringify(headers), new RegExp(`${service.port}`));
  });

  it('T50 gets one request for one, whatever the client has hidden in it', async () => {
    await using world = await proxied();
    let bytes = '';
    await using _service = await rawUpstream(world.mesh, (socket) => {
      socket.on('data', (chunk) => {
        bytes += chunk.toString('latin1');
        if (bytes.endsWith('\r\n0\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    const hidden = '0\r\n\r\nGET /admin HTTP/1.1\r\nHost: internal\r\n\r\n';

    const answer = await world.raw(
      `POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n${hidden.length.toString(16)}\r\n${hidden}\r\n0\r\n\r\n`,
    );

    assert.match(answer, /^HTTP\/1\.1 200 OK/);
    const [head = '', body = ''] = bytes.split(/\r\n\r\n([\s\S]*)/);
    assert.match(head, /^POST \/files\/a HTTP\/1\.1\r\n/);
    assert.match(head, /\r\ntransfer-encoding: chunked/i);
    assert.doesNotMatch(head, /content-length/i);
    assert.equal(body, `${hidden.length.toString(16)}\r\n${hidden}\r\n0\r\n\r\n`);
  });

  const smuggled: [string, string][] = [
    ['CL.TE', 'Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG'],
    ['TE.CL', 'Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n'],
    ['two Content-Length', 'Content-Length: 0\r\nContent-Length: 44\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n'],
    [
      'an obscured Transfer-Encoding',
      'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    ['a Transfer-Encoding of two', 'Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n'],
    ['a chunk size with more behind it', 'Transfer-Encoding: chunked\r\n\r\n1;a=\n\r\nx\r\n0\r\n\r\n'],
  ];
  for (const [what, rest] of smuggled) {
    it(`T50 never hears of a request with ${what}`, async () => {
      await using world = await proxied();
      let requests = '';
      await using _service = await rawUpstream(world.mesh, (socket) => {
        socket.on('data', (chunk) => {
          requests += chunk.toString('latin1');
        });
      });

      const answer = await world.raw(
        `POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: text/plain\r\n${rest}`,
      );

      assert.match(answer, /^HTTP\/1\.1 400 /);
      assert.equal(answer.match(/^HTTP\/1\.1/gm)?.length, 1);
      assert.doesNotMatch(requests, /admin|SMUGGLED|0\r\n\r\n/);
    });
  }

  it('T50 does not get the body of a GET', async () => {
    await using world = await proxied();
    let bytes = '';
    await using _service = await rawUpstream(world.mesh, (socket) => {
      socket.on('data', (chunk) => {
        bytes += chunk.toString('latin1');
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    const hidden = 'GET /admin HTTP/1.1\r\nHost: x\r\n\r\n';

    await world.raw(`GET /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`);

    assert.doesNotMatch(bytes, /admin|content-length/i);
  });
});

describe('T61 an HTTP service that fails', () => {
  it('T61 is 503 when nobody is there', async () => {
    await using world = await proxied({ limits: { upstreamTimeoutMs: 1000 } });

    const none = await world.ask('GET', '/files/a');
    const service = await httpUpstream(world.mesh, (_req, res) => res.end());
    await eventually(async () => assert.equal((await world.ask('GET', '/files/a')).status, 200));
    await service[Symbol.asyncDispose]();

    assert.deepEqual([none.status, none.code], [503, 'upstream-unavailable']);
  });

  it('T61 is 504 when it is slow', async () => {
    await using world = await proxied({ limits: { upstreamTimeoutMs: 200 } });
    await using _service = await httpUpstream(world.mesh, () => {});

    const { status, code } = await world.ask('GET', '/files/a');

    assert.deepEqual([status, code], [504, 'upstream-timeout']);
  });

  it('T61 is 502 when it is somebody else, who gets nothing of the request', async () => {
    await using world = await proxied();
    let requests = 0;
    await using _impostor = await httpUpstream(
      world.mesh,
      (_req, res) => {
        requests++;
        res.end('stolen');
      },
      { id: world.mesh.id('impostor') },
    );

    const answer = await world.ask('POST', '/files/a', { headers: { 'content-type': 'text/plain' }, body: 'secret' });

    assert.deepEqual([answer.status, answer.code], [502, 'upstream-refused']);
    assert.doesNotMatch(answer.body, /impostor|spiffe|127\.0\.0\.1/);
    assert.match(world.events('request-refused')[0]?.detail ?? '', /the server is spiffe:.*impostor, expected/);
    assert.equal(requests, 0);
  });

  it('T61 shows nothing of its stack traces', async () => {
    await using world = await proxied();
    await using _service = await httpUpstream(world.mesh, (_req, res) => {
      res.writeHead(500, { 'x-debug': 'db.internal' }).end('Error: hunter2 at db.internal');
    });

    const { status, code, body, headers } = await world.ask('GET', '/files/a');

    assert.deepEqual([status, code], [502, 'upstream-failed']);
    assert.doesNotMatch(body + JSON.stringify(headers), /hunter2|db\.internal/);
  });

  for (const [what, text] of [
    ['does not speak HTTP', 'SSH-2.0\r\n'],
    ['answers in an unknown coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n'],
  ] as const) {
    it(`T61 is 502 when it ${what}`, async () => {
      await using world = await proxied();
      await using _service = await rawUpstream(world.mesh, (socket) => socket.on('data', () => socket.end(text)));

      const { status, code } = await world.ask('GET', '/files/a');

      assert.deepEqual([status, code], [502, 'upstream-malformed']);
    });
  }

  it('T61 is 503 when it switches to another protocol, which nobody has asked for', async () => {
    await using world = await proxied();
    await using _service = await rawUpstream(world.mesh, (socket) =>
      socket.on('data', () =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'),
      ),
    );

    const { status, code } = await world.ask('GET', '/files/a');

    assert.deepEqual([status, code], [503, 'upstream-unavailable']);
  });

  it('T62 that breaks off does so for the client too, on both versions of HTTP', async () => {
    await using world = await proxied();
    await using _service = await rawUpstream(world.mesh, (socket) =>
      socket.on('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf');
        setTimeout(() => socket.destroy(), 50);
      }),
    );

    await assert.rejects(world.ask('GET', '/files/a'), { code: 'ECONNRESET' });

    const session = connectHttp2(`https://127.0.0.1:${world.port}`, { ca: world.ca, servername: 'shop.test' });
    const stream = session.request({ ':path': '/files/a', ':authority': 'shop.test' });
    stream.resume();
    await assert.rejects(once(stream, 'end'), { code: 'ERR_HTTP2_STREAM_ERROR' });
    session.close();
  });

  it('is asked again elsewhere, where that does no harm', async () => {
    await using world = await proxied();
    let broken = 0;
    const breaking = { name: 'files' };
    await using _broken = await rawUpstream(
      world.mesh,
      (socket) =>
        socket.once('data', () => {
          broken++;
          socket.destroy();
        }),
      breaking,
    );
    await using _good = await httpUpstream(world.mesh, (_req, res) => res.end('good'));

    const gets = await Promise.all(Array.from({ length: 10 }, () => world.ask('GET', '/files/a')));
    assert.deepEqual([...new Set(gets.map(({ body }) => body))], ['good']);
    assert.ok(broken > 0, 'the broken one was never asked');

    broken = 0;
    const headers = { 'content-type': 'text/plain' };
    const posts = await Promise.all(
      Array.from({ length: 10 }, () => world.ask('POST', '/files/a', { headers, body: 'x' })),
    );
    assert.equal(posts.filter(({ status }) => status === 503).length, broken);
    assert.ok(broken > 0, 'the broken one was never asked');
  });

  it('is passed over before anything was sent, whatever the method', async () => {
    await using world = await proxied();
    const dead = await httpUpstream(world.mesh, (_req, res) => res.end('dead'), { registers: true });
    await using _impostor = await httpUpstream(world.mesh, (_req, res) => res.end('no'), { id: world.mesh.id('no') });
    await using _good = await httpUpstream(world.mesh, (_req, res) => res.end('good'));
    await dead[Symbol.asyncDispose]();

    const headers = { 'content-type': 'text/plain' };
    for (let i = 0; i < 5; i++) {
      assert.equal((await world.ask('POST', '/files/a', { headers, body: 'x' })).body, 'good');
    }
  });
});

describe('bodies on their way through the gateway', () => {
  it('T56 are ended at their limit, declared or not', async () => {
    await using world = await proxied();
    let whole = 0;
    await using _service = await httpUpstream(world.mesh, async (req, res) => {
      await textOf(req).then(
        () => whole++,
        () => {},
      );
      res.end();
    });
    const headers = { 'content-type': 'text/plain' };

    const declared = await world.ask('POST', '/files/a', { headers, body: 'x'.repeat(2000) });
    const chunked = await world.raw(
      `POST /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n${'x'.repeat(2000)}\r\n0\r\n\r\n`,
    );

    assert.deepEqual([declared.status, declared.code], [413, 'body-too-large']);
    assert.match(chunked, /^HTTP\/1\.1 413 /);
    assert.equal(whole, 0);
  });

  it('T56 that are too long as answers break off', async () => {
    await using world = await proxied({ limits: { maxStreamBytes: 1000 } });
    await using _service = await httpUpstream(world.mesh, (_req, res) => res.end('x'.repeat(5000)));

    await assert.rejects(world.ask('GET', '/files/a'));
    assert.equal(world.events('request-refused')[0]?.code, 'stream-too-long');
  });

  it('flow no faster than the client reads', async () => {
    await using world = await proxied();
    let sent = 0;
    await using _service = await httpUpstream(world.mesh, (_req, res) => {
      const part = Buffer.alloc(100_000);
      const more = () => {
        while (sent < 60_000_000 && res.write(part)) sent += part.length;
        if (sent < 60_000_000) res.once('drain', more);
        else res.end();
      };
      more();
    });
    const { port, ca } = world;
    const outgoing = httpsRequest({
      host: '127.0.0.1',
      port,
      ca,
      servername: 'shop.test',
      path: '/files/a',
      headers: { host: 'shop.test' },
    }).end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    answer.pause();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const before = sent;
    await new Promise((resolve) => setTimeout(resolve, 200));

    assert.equal(sent, before, 'it is still being sent');
    assert.ok(sent < 40_000_000, `${sent} bytes were taken for a client that reads none`);
    outgoing.destroy();
  });

  it('flow no faster than the service reads', async () => {
    await using world = await proxied();
    await using service = await httpUpstream(world.mesh, (req, _res: ServerResponse) => req.pause());
    const socket = await world.dial();
    let taken = 0;
    const part = Buffer.alloc(100_000);
    socket.write(`PUT /files/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: a/b\r\nContent-Length: 40000000\r\n\r\n`);
    const more = () => {
      while (taken < 40_000_000 && socket.write(part)) taken += part.length;
      socket.once('drain', more);
    };
    more();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const before = taken;
    await new Promise((resolve) => setTimeout(resolve, 200));

    assert.equal(service.sockets.size, 1);
    assert.equal(taken, before, 'it is still being taken');
    assert.ok(taken < 30_000_000, `${taken} bytes were taken for a service that reads none`);
    socket.destroy();
  });

  it('T62 never look whole to a service that has answered before their end', async () => {
    await using world = await proxied();
    const seen: string[] = [];
    await using _service = await httpUpstream(world.mesh, (req, res) => {
      req.resume();
      req.on('end', () => seen.push('whole'));
      req.socket.on('close', () => seen.push('broken'));
      res.end('enough');
    });
    const session = connectHttp2(`https://127.0.0.1:${world.port}`, { ca: world.ca, servername: 'shop.test' });
    const stream = session.request({ ':method': 'PUT', ':path': '/files/a', ':authority': 'shop.test' });
    stream.resume().write('half');

    await once(stream, 'close');
    await eventually(() => assert.equal(seen.length, 1));
    session.close();

    assert.deepEqual(seen, ['broken']);
  });

  it('T62 never look whole when the client cancels as clients on node:http2 do', async () => {
    await using world = await proxied();
    const seen: string[] = [];
    await using _service = await httpUpstream(world.mesh, (req, res) => {
      req.on('data', () => seen.push('begun'));
      req.on('end', () => seen.push('whole'));
      req.on('error', () => seen.push('broken'));
      req.on('close', () => res.end());
    });

    await using upload = await cancelledUpload(world, '/files/a', 'text/plain', 'half');
    await eventually(() => assert.deepEqual(seen, ['begun']));
    upload.cancel();
    await eventually(() => assert.equal(seen.length, 2));

    assert.deepEqual(seen, ['begun', 'broken']);
  });

  it('are given up by the service when the client is gone', async () => {
    await using world = await proxied();
    let closed = false;
    await using _service = await httpUpstream(world.mesh, (_req, res) => {
      res.write('first');
      res.on('close', () => {
        closed = true;
      });
    });
    const { port, ca } = world;
    const at = {
      host: '127.0.0.1',
      port,
      ca,
      servername: 'shop.test',
      path: '/files/a',
      headers: { host: 'shop.test' },
    };
    const outgoing = httpsRequest(at).end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    await once(answer, 'data');

    outgoing.destroy();

    await eventually(() => assert.ok(closed), 2000);
  });
});

describe('a route to an HTTP service', () => {
  it('may name an address, and who must answer there', async () => {
    const [port = 0] = await freePorts(1);
    const id = 'spiffe://test.sallyport/svc/elsewhere';
    await using world = await gatewayWorld({
      routes: [
        httpRoute('GET', '/a', { upstream: `https://127.0.0.1:${port}`, expect: exactly(id), public: true }),
        httpRoute('GET', '/b', {
          upstream: `https://127.0.0.1:${port}`,
          expect: exactly('spiffe://test.sallyport/svc/other'),
          public: true,
        }),
      ],
    });
    await using _service = await httpUpstream(world.mesh, (_req, res) => res.end('yes'), {
      id,
      port,
      registers: false,
    });

    assert.equal((await world.ask('GET', '/a')).body, 'yes');
    assert.equal((await world.ask('GET', '/b')).code, 'upstream-refused');
  });

  it('shares no connection with one that expects somebody else under the same name', async () => {
    const expecting = (isExpected: boolean) => ({
      matches: () => isExpected,
      description: 'the files',
      trustDomain: 'test.sallyport',
    });
    await using world = await gatewayWorld({
      routes: [
        httpRoute('GET', '/a', { upstream: 'files', expect: expecting(true), public: true }),
        httpRoute('GET', '/b', { upstream: 'files', expect: expecting(false), public: true }),
      ],
    });
    await using _service = await httpUpstream(world.mesh, (_req, res) => res.end('yes'));

    assert.equal((await world.ask('GET', '/a')).body, 'yes');
    assert.equal((await world.ask('GET', '/b')).code, 'upstream-refused');
  });

  const wrong: [string, object, string][] = [
    ['clear text', { upstream: 'http://10.0.0.7', expect: memberOf('test.sallyport') }, 'upstream-plaintext'],
    ['an address without an identity', { upstream: 'https://10.0.0.7:8443' }, 'identity-expectation-empty'],
    ['a path in the address', { upstream: 'https://10.0.0.7/x', expect: memberOf('test.sallyport') }, 'option-invalid'],
    ['an identity header that passes', { upstream: 'files', passes: ['x-user'] }, 'option-invalid'],
    ['no upstream', {}, 'option-missing'],
  ];
  for (const [what, options, id] of wrong) {
    it(`refuses to start with ${what}`, async () => {
      const route = httpRoute('GET', '/', { ...options, public: true } as never);

      const error = await gatewayWorld({ routes: [route] }).then(
        () => undefined,
        (error: unknown) => error,
      );

      assert.ok(error instanceof InsecureConfigurationError, 'it has started');
      assert.deepEqual(
        error.violations.map((found) => found.id),
        [id],
      );
    });
  }
});
