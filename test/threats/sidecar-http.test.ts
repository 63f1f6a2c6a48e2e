import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { allow, deny, type Rule } from '@sallyport/core';
import type { SidecarLimits } from '@sallyport/sidecar';
import { ErrorCode } from '@sallyport/transport-mtls/spi';
import { eventually } from '../support/eventually.js';
import {
  Flag,
  FrameType,
  frame,
  framesIn,
  type HeaderFields,
  hello,
  hpack,
  ping,
  rstStream,
  settings,
} from '../support/h2-frames.js';
import { mutatedRequest } from '../support/mutated-requests.js';
import { randomNumbers } from '../support/random.js';
import type { Conversation } from '../support/sidecar/conversation.js';
import {
  type Asking,
  ask,
  EVERYTHING,
  h2Caller,
  type Mirrored,
  mirror,
  rawCaller,
  say,
} from '../support/sidecar/http.js';
import { idOf, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';

interface Stronghold extends AsyncDisposable {
  readonly world: SidecarWorld;
  readonly door: Started;
  /** Requests that the program has seen: `GET /path`. */
  readonly heard: readonly string[];
  /** Their headers, names and values in turn. */
  readonly headers: readonly string[];
}

/** A sidecar under attack, before a program that answers whatever it is asked with what it has seen. */
async function stronghold(authorize: readonly Rule[] = EVERYTHING, limits: SidecarLimits = {}): Promise<Stronghold> {
  const heard: string[] = [];
  const headers: string[] = [];
  const app = createServer((request, response) => {
    heard.push(`${request.method} ${request.url}`);
    headers.push(...request.rawHeaders);
    mirror(request, response);
  });
  app.listen(0, '127.0.0.1');
  await once(app, 'listening');
  const world = sidecarWorld();
  const { port } = app.address() as AddressInfo;
  const door = await world.start({ inbound: { target: `127.0.0.1:${port}`, protocol: 'http' }, authorize, limits });
  return {
    world,
    door,
    heard,
    headers,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      app.closeAllConnections();
      app.close();
      await once(app, 'close');
    },
  };
}

function statusesOf(said: string): string[] {
  return said.match(/^HTTP\/1\.1 \d{3}/gm)?.map((line) => line.slice(-3)) ?? [];
}

/** Refused with 400 (or what is named) and told of, the connection over, the program none the wiser; and others are served. */
async function requireRefused(target: Stronghold, text: string, status = '400'): Promise<void> {
  const { world, door, heard } = target;
  const before = heard.length;
  const alarms = door.events('call-rejected').length;

  const said = await say(world, door, text);

  assert.deepEqual(statusesOf(said), [status], said);
  assert.equal(heard.length, before, 'the program heard of it');
  assert.equal(door.events('call-rejected').length, alarms + 1, 'nobody was told');
  assert.equal(door.events('call-rejected').at(-1)?.peer, idOf('web'));
  assert.equal((await ask(world, door)).status, 200);
}

describe('requests that want another door (T63)', () => {
  for (const [what, text, status] of [
    ['CONNECT', 'CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: 169.254.169.254:80\r\n\r\n', '405'],
    [
      'an absolute URI',
      'GET http://169.254.169.254/latest HTTP/1.1\r\nhost: 169.254.169.254\r\nconnection: close\r\n\r\n',
    ],
    ['an absolute URI of the host itself', 'GET http://x/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
    ['an absolute URI of another scheme', 'GET file:///etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
    ['OPTIONS *', 'OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
    ['a host that is none', 'GET / HTTP/1.1\r\nhost: a@b\r\nconnection: close\r\n\r\n'],
    ['no host', 'GET / HTTP/1.1\r\nconnection: close\r\n\r\n'],
    ['HTTP/1.0', 'GET / HTTP/1.0\r\nhost: x\r\n\r\n', '505'],
    ['an upgrade to h2c', 'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n'],
    [
      'an upgrade to two protocols',
      'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket, h2c\r\n\r\n',
    ],
    ['an upgrade by POST', 'POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n'],
    [
      'an upgrade with a body',
      'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc',
    ],
  ] as const) {
    it(`${what} is refused`, async () => {
      await using target = await stronghold();

      await requireRefused(target, text, status ?? '400');
    });
  }

  it('CONNECT and the extended CONNECT of HTTP/2 are refused', async () => {
    await using target = await stronghold();
    using web = await h2Caller(target.world, target.door);

    const stream = web.session.request({ ':method': 'CONNECT', ':authority': '169.254.169.254:80' });
    const [headers] = await once(stream, 'response');
    stream.close();
    const extended = web.ask({ method: 'CONNECT', headers: { ':protocol': 'websocket', ':scheme': 'https' } });

    assert.equal(headers[':status'], 405);
    await assert.rejects(extended, /PROTOCOL_ERROR|no answer/);
    assert.deepEqual(target.heard, []);
  });

  for (const alpn of [['h3'], ['sallyport-grpc/1'], ['h2c'], ['http/1.0']]) {
    it(`T21 a caller that offers ${alpn} only is refused at the door`, async () => {
      await using target = await stronghold();

      using web = await rawCaller(target.world, target.door, alpn);
      await over(web);

      assert.deepEqual(
        target.door.events('handshake-refused').map(({ reason }) => reason),
        ['alpn'],
      );
    });
  }

  it('T21 a door for gRPC lets nobody in who speaks HTTP/1.1, or does not say', async () => {
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: '127.0.0.1:1', protocol: 'grpc' } });

    for (const alpn of [['http/1.1'], []]) {
      using web = await rawCaller(world, door, alpn);
      await over(web);
    }

    assert.deepEqual(
      door.events('handshake-refused').map(({ reason }) => reason),
      ['alpn', 'alpn'],
    );
  });
});

describe('requests with two readings (T50)', () => {
  const smuggled = 'GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n';
  for (const [what, text] of [
    [
      'two lengths',
      `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: ${smuggled.length}\r\n\r\n${smuggled}`,
    ],
    ['the same length twice', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na'],
    ['a list of lengths', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\na'],
    ['a length with a sign', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na'],
    [
      'a length and chunks (CL.TE)',
      `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'chunks and a length (TE.CL)',
      `POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'chunks that are not the last coding',
      `POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'another spelling of chunked',
      `POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    [
      'two transfer codings',
      `POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    [
      'a coding below the chunks',
      `POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    ],
    ['a space before the colon', `POST / HTTP/1.1\r\nhost: x\r\ncontent-length : 4\r\n\r\nabcd`],
    ['a folded header', 'GET / HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\nconnection: close\r\n\r\n'],
    ['a folded length', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length:\r\n 4\r\n\r\nabcd'],
    ['bare line feeds', 'GET / HTTP/1.1\nhost: x\nconnection: close\n\n'],
    ['a bare line feed in the headers', 'GET / HTTP/1.1\r\nhost: x\nx-a: b\r\nconnection: close\r\n\r\n'],
    ['a bare carriage return', 'GET / HTTP/1.1\r\nhost: x\r\nx-a: b\rc: d\r\nconnection: close\r\n\r\n'],
    ['a zero byte in a header', 'GET / HTTP/1.1\r\nhost: x\r\nx-a: b\0\r\nconnection: close\r\n\r\n'],
    ['two hosts', 'GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n'],
    ['a Connection that hides the host', 'GET / HTTP/1.1\r\nhost: x\r\nconnection: close, host\r\n\r\n'],
    [
      'a Connection that hides the length',
      'POST / HTTP/1.1\r\nhost: x\r\nconnection: close, content-length\r\ncontent-length: 1\r\n\r\na',
    ],
    [
      'two authorizations',
      'GET / HTTP/1.1\r\nhost: x\r\nauthorization: a\r\nauthorization: b\r\nconnection: close\r\n\r\n',
    ],
    ['a chunk of no size', 'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nz\r\na\r\n0\r\n\r\n'],
    ['a method in lower case', 'get / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
    ['no HTTP at all', 'SSH-2.0-OpenSSH_9.2p1\r\n\r\n'],
  ] as const) {
    it(`${what}: refused, and nothing is smuggled to the program`, async () => {
      await using target = await stronghold();
      const { world, door, heard } = target;

      const said = await say(world, door, text);

      // Some are only found out with the body: the request then never becomes a whole one.
      assert.ok(!statusesOf(said).includes('200'), said);
      assert.ok(!heard.some((one) => one.includes('smuggled')), heard.join());
      assert.ok(door.events('call-rejected').length > 0);
      assert.equal((await ask(world, door)).status, 200);
    });
  }

  it('by HTTP/2: Host that differs from :authority, a length that does not fit, a line feed in a header', async () => {
    await using target = await stronghold();
    using web = await h2Caller(target.world, target.door);

    const hosts = await web.ask({ headers: { host: 'other' } });
    await assert.rejects(web.ask({ method: 'POST', headers: { 'content-length': '2' }, body: 'abc' }));
    await assert.rejects(web.ask({ method: 'POST', headers: { 'content-length': '5' }, body: 'abc' }));
    using raw = await rawCaller(target.world, target.door, ['h2']);
    raw.socket.write(
      Buffer.concat([hello(), request(1, [['x-a', 'b\r\nc: d']]), request(3, [['transfer-encoding', 'chunked']])]),
    );
    // nghttp2 leaves out a header that it cannot read.
    await eventually(() => assert.deepEqual(target.heard, ['GET /']));
    await eventually(() => assert.ok(raw.bytes().includes(rstStream(3, ErrorCode.PROTOCOL_ERROR))));

    assert.equal(hosts.status, 400);
    const names = target.headers.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
    assert.deepEqual(names.sort(), ['connection', 'host', 'x-sallyport-peer']);
  });
});

describe('requests that were mutated at random', () => {
  const requests = [
    'GET /v1/a?x=1 HTTP/1.1\r\nhost: x\r\nx-sallyport-peer: forged\r\nconnection: close\r\n\r\n',
    'POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nx_sallyport_peer: forged\r\n\r\nhelloGET /v1/../x HTTP/1.1\r\nhost: x\r\n\r\n',
    'POST /v1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sallyport-peer: forged\r\n\r\n',
    'GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nabc',
  ];
  const pieces = ['x-sallyport-peer: forged\r\n', 'connection: x-sallyport-peer\r\n'];

  it('reach the program with one identity and a path of one spelling, or not at all', async () => {
    const limits = {
      headersTimeoutMs: 300,
      bodyTimeoutMs: 100,
      requestIdleTimeoutMs: 300,
      maxConnectionsPerPeer: 1000,
    };
    await using target = await stronghold(EVERYTHING, limits);
    const below = randomNumbers(20261122);

    for (let round = 0; round < 15; round++) {
      const texts = Array.from({ length: 20 }, () => mutatedRequest(below, requests, pieces));
      await Promise.all(
        texts.map(async (text) => {
          using web = await rawCaller(target.world, target.door);
          web.socket.write(text, 'latin1');
          await Promise.race([over(web), new Promise((resolve) => setTimeout(resolve, 50))]);
        }),
      );
    }

    const { heard, headers, world, door } = target;
    const peers = headers.filter((_, i) => i % 2 === 1 && /^x[-_]sallyport[-_]peer$/i.test(headers[i - 1] ?? ''));
    assert.ok(heard.length > 20, 'nearly all were refused: they prove little');
    assert.equal(peers.length, heard.length);
    assert.deepEqual(new Set(peers), new Set([idOf('web')]));
    assert.deepEqual(
      heard.filter((one) => /\.\.|\/\/|%2e|;|http:/i.test(one.split('?')[0] ?? '')),
      [],
    );
    assert.equal((await ask(world, door)).status, 200);
    await eventually(() => assert.equal(door.sidecar.connections.inbound, 0));
  });
});

describe('paths with two spellings (T52)', () => {
  const guarded = [allow({ from: idOf('web'), to: '* /**' }), deny({ from: idOf('web'), to: '* /admin/**' })];
  for (const path of [
    '//admin',
    '/./admin',
    '/x/../admin',
    '/x/%2e%2e/admin',
    '/%2e/admin',
    '/x%2fadmin',
    '/x%5cadmin',
    '/x\\admin',
    '/%61dmin',
    '/admin;x=1',
    '/;/admin',
    '/admin%3b',
    '/admin%00',
    '/admin%20%25',
    '/%c0%afadmin',
    '/%E0%80%AFadmin',
    '/%zz',
    '/admin%',
    '/admin#x',
    '/x?a=b#c',
    '/x?a=\x7f',
    '/admin\tx',
    '/café',
  ]) {
    it(`${JSON.stringify(path)} is malformed, by either version`, async () => {
      await using target = await stronghold(guarded);
      using web = await h2Caller(target.world, target.door);

      const said = await say(target.world, target.door, `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
      const byH2 = await web.ask({ path }).then(
        ({ status }) => status,
        () => 400,
      );

      assert.deepEqual(statusesOf(said), ['400'], said);
      assert.equal(byH2, 400);
      assert.deepEqual(target.heard, []);
    });
  }

  for (const [method, path] of [
    ['GET', '/admin'],
    ['GET', '/admin/'],
    ['GET', '/ADMIN/users'],
    ['HEAD', '/Admin'],
    ['DELETE', '/admin/users/7'],
    ['GET', '/admin?x=/public'],
    ['GET', '/admin%20'],
    ['GET', `/admin/${'a/'.repeat(3000)}`],
  ] as const) {
    const isGuarded = path !== '/admin%20';
    it(`${method} ${path.slice(0, 20)} is ${isGuarded ? 'denied' : 'another path'}`, async () => {
      await using target = await stronghold(guarded);

      const { status } = await ask(target.world, target.door, { method, path });

      assert.equal(status, isGuarded ? 403 : 200);
      assert.equal(target.heard.length, isGuarded ? 0 : 1);
      assert.equal(target.door.events('call-denied').length, isGuarded ? 1 : 0);
    });
  }

  it('T55 headers that ask for another method or path do not reach the program', async () => {
    await using target = await stronghold([allow({ from: idOf('web'), to: 'GET /v1' })]);

    const { status, mirrored } = await ask(target.world, target.door, {
      path: '/v1',
      headers: {
        'x-http-method-override': 'DELETE',
        'x-http-method': 'DELETE',
        'x-method-override': 'DELETE',
        x_http_method_override: 'DELETE',
        'x-original-url': '/admin',
        'x-rewrite-url': '/admin',
      },
    });

    assert.equal(status, 200);
    assert.deepEqual(
      mirrored().headers.filter(([name]) => /override|method|url/.test(name)),
      [],
    );
  });
});

describe('who the caller is (T65, T51)', () => {
  const forged = 'spiffe://sidecar.test/svc/root';
  const spellings = [
    'x-sallyport-peer',
    'X-Sallyport-Peer',
    'X_SALLYPORT_PEER',
    'x-sallyport_peer',
    'x.sallyport.peer',
    'x-sallyport-user',
    'x-forwarded-client-cert',
    'X-Forwarded-For',
    'x_forwarded_for',
    'forwarded',
    'x-real-ip',
    'x-client-cert',
    'ssl-client-verify',
    'x-ssl-client-s-dn',
    'x-spiffe-id',
    'x-user',
    'x-remote-user',
    'remote_user',
    'x-auth-request-user',
    'proxy',
  ];

  function claims({ headers }: Mirrored): (readonly [string, string])[] {
    return headers.filter(([name, value]) => value.includes('svc/') || /sallyport|forwarded|user|ssl|cert/.test(name));
  }

  it('T65 only the sidecar says who calls, whatever the caller writes in whatever spelling', async () => {
    await using target = await stronghold();
    const lines = spellings.map((name) => `${name}: ${forged}\r\n`).join('');
    using web = await h2Caller(target.world, target.door);

    const said = await say(target.world, target.door, `GET / HTTP/1.1\r\nhost: x\r\n${lines}connection: close\r\n\r\n`);
    const byH2 = await web.ask({
      headers: Object.fromEntries(
        [...new Set(spellings.map((name) => name.toLowerCase()))].map((name) => [name, forged]),
      ),
    });

    const byH1 = JSON.parse(said.slice(said.indexOf('{'), said.lastIndexOf('}') + 1)) as Mirrored;
    for (const seen of [byH1, byH2.mirrored()]) assert.deepEqual(claims(seen), [['x-sallyport-peer', idOf('web')]]);
  });

  it('T51 a Connection that names the header of the sidecar does not take it out', async () => {
    await using target = await stronghold();

    const said = await say(
      target.world,
      target.door,
      `GET / HTTP/1.1\r\nhost: x\r\nconnection: close, x-sallyport-peer, x-mine\r\nx-sallyport-peer: ${forged}\r\nx-mine: a\r\n\r\n`,
    );

    assert.ok(said.includes(`["x-sallyport-peer","${idOf('web')}"]`), said);
    assert.ok(!said.includes(forged) && !said.includes('x-mine'), said);
  });

  it('T65 twice, in trailers and under a prototype: it is not believed', async () => {
    await using target = await stronghold();

    const said = await say(
      target.world,
      target.door,
      `POST / HTTP/1.1\r\nhost: x\r\nx-sallyport-peer: ${forged}\r\nX-Sallyport-Peer: ${forged}\r\n__proto__: ${forged}x\r\n` +
        `transfer-encoding: chunked\r\ntrailer: x-sallyport-peer\r\nconnection: close\r\n\r\n` +
        `1\r\na\r\n0\r\nx-sallyport-peer: ${forged}\r\nx-fine: yes\r\n\r\n`,
    );

    assert.ok(said.includes(`["x-sallyport-peer","${idOf('web')}"]`), said);
    assert.equal(said.split(`"${forged}"`).length, 1, said);
    assert.ok(said.includes('"trailers":{"x-fine":"yes"}'), said);
  });

  it('callers do not share a connection to the program, so that nothing of one becomes the request of another', async () => {
    await using target = await stronghold([...EVERYTHING, allow({ from: idOf('guest'), to: '* /**' })]);
    using web = await h2Caller(target.world, target.door);
    using guest = await h2Caller(target.world, target.door, 'guest');

    const peers = await Promise.all(
      [web, guest, web, guest].map(async (one) =>
        new Map((await one.ask()).mirrored().headers).get('x-sallyport-peer'),
      ),
    );

    assert.deepEqual(peers, [idOf('web'), idOf('guest'), idOf('web'), idOf('guest')]);
  });
});

const ALSO_GUEST = [...EVERYTHING, allow({ from: idOf('guest'), to: '* /**' })];

/** The connection of `web` was closed for abuse, and others are served. */
async function requireBarred({ world, door }: Stronghold): Promise<void> {
  assert.equal((await ask(world, door, { name: 'guest' })).status, 200);
  await eventually(() =>
    assert.deepEqual(
      door.events('connection-closed-by-policy').map(({ peer, reason }) => ({ peer, reason })),
      [{ peer: idOf('web'), reason: 'abuse' }],
    ),
  );
}

/** GET / with these besides what it needs. */
function request(
  stream: number,
  fields: HeaderFields = [],
  flags: number = Flag.END_HEADERS | Flag.END_STREAM,
): Buffer {
  const needed: HeaderFields = [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':authority', 'x'],
    [':path', '/'],
  ];
  return frame(FrameType.HEADERS, flags, stream, hpack([...needed, ...fields]));
}

/** Writes until the connection is over or the time is up. */
async function flood(web: Conversation, next: () => Buffer, maxMs = 5000): Promise<void> {
  const until = Date.now() + maxMs;
  const ended = over(web);
  while (web.log.length === 0 && Date.now() < until) {
    if (!web.socket.write(next())) await Promise.race([once(web.socket, 'drain').catch(() => {}), ended]);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function over(web: Conversation): Promise<void> {
  await Promise.race([web.closed, web.ended]);
}

function repeat(bytes: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => bytes));
}

describe('callers that want to exhaust the sidecar (HTTP)', () => {
  it('T24 headers that never end are a 408, and nobody waits for them', async () => {
    await using target = await stronghold(EVERYTHING, { headersTimeoutMs: 300 });

    const slow = say(target.world, target.door, 'GET / HTTP/1.1\r\nhost: x\r\nx-a: ');
    assert.equal((await ask(target.world, target.door)).status, 200);

    assert.deepEqual(statusesOf(await slow), ['408']);
    assert.deepEqual(target.heard, ['GET /']);
  });

  it('T24 a body that stops is a 408, by either version', async () => {
    await using target = await stronghold(EVERYTHING, { bodyTimeoutMs: 200 });
    using web = await h2Caller(target.world, target.door);
    const stream = web.session.request({ ':method': 'POST', ':path': '/', ':authority': 'x' });
    stream.write('half');

    const [headers] = await once(stream, 'response');
    const said = await say(target.world, target.door, 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf');

    assert.equal(headers[':status'], 408);
    assert.deepEqual(statusesOf(said), ['408']);
    stream.close();
  });

  it('T27 headers that are too large or too many are a 431, by either version', async () => {
    await using target = await stronghold(EVERYTHING, { maxHeaders: 20, maxHeaderBytes: 2048 });
    using web = await h2Caller(target.world, target.door);
    const many = Array.from({ length: 30 }, (_, i) => [`x-${i}`, 'a'] as const);

    const large = await say(target.world, target.door, `GET / HTTP/1.1\r\nhost: x\r\nx-a: ${'a'.repeat(4000)}\r\n\r\n`);
    const counted = await say(
      target.world,
      target.door,
      `GET / HTTP/1.1\r\nhost: x\r\n${many.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
    );
    const path = await say(target.world, target.door, `GET /${'a'.repeat(4000)} HTTP/1.1\r\nhost: x\r\n\r\n`);
    const byH2 = await Promise.allSettled([
      web.ask({ headers: { 'x-a': 'a'.repeat(1900), 'x-b': 'a'.repeat(200) } }),
      web.ask({ headers: Object.fromEntries(many) }),
    ]);

    assert.deepEqual([large, counted, path].flatMap(statusesOf), ['431', '431', '431']);
    for (const result of byH2) {
      assert.ok(result.status === 'rejected' || result.value.status === 431, JSON.stringify(result));
    }
    assert.deepEqual(target.heard, []);
  });

  it('T25 requests over the cap of one caller are a 429, over that of all a 503, and later ones are served', async () => {
    await using world = sidecarWorld();
    const held: { end(): void }[] = [];
    const app = createServer((_request, response) => held.push(response));
    app.listen(0, '127.0.0.1');
    await once(app, 'listening');
    const door = await world.start({
      inbound: { target: `127.0.0.1:${(app.address() as AddressInfo).port}`, protocol: 'http' },
      authorize: ALSO_GUEST,
      limits: { maxRequests: 4, maxRequestsPerPeer: 3 },
    });
    using web = await h2Caller(world, door);
    using guest = await h2Caller(world, door, 'guest');
    const calls = [web.ask(), web.ask(), web.ask()];
    await eventually(() => assert.equal(held.length, 3));

    const ofOne = await web.ask();
    calls.push(guest.ask());
    await eventually(() => assert.equal(held.length, 4));
    const ofAll = await guest.ask();
    for (const response of held) response.end();
    const statuses = (await Promise.all(calls)).map(({ status }) => status);
    const after = web.ask();
    await eventually(() => assert.equal(held.length, 5));
    held.at(-1)?.end();

    assert.deepEqual([ofOne.status, ofAll.status, (await after).status], [429, 503, 200]);
    assert.deepEqual(statuses, [200, 200, 200, 200]);
    assert.deepEqual(
      door.events('call-rejected').map(({ status }) => status),
      ['RESOURCE_EXHAUSTED', 'RESOURCE_EXHAUSTED'],
    );
    await world[Symbol.asyncDispose]();
    app.closeAllConnections();
    app.close();
  });

  it('refusals, and answers without a body, are no abuse, however many there are', async () => {
    await using target = await stronghold([allow({ from: idOf('web'), to: ['HEAD /', 'GET /v1'] })]);
    using web = await h2Caller(target.world, target.door);
    const statuses = new Map<number, number>();
    const count = async (asking: Asking): Promise<void> => {
      const { status } = await web.ask(asking);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    };

    for (let i = 0; i < 40; i++) {
      await Promise.all([
        ...Array.from({ length: 20 }, () => count({ path: '/denied', method: 'POST', body: 'x' })),
        ...Array.from({ length: 20 }, () => count({ method: 'HEAD' })),
      ]);
    }

    assert.deepEqual(Object.fromEntries(statuses), { 200: 800, 403: 800 });
    assert.equal((await web.ask({ path: '/v1' })).status, 200);
    assert.deepEqual(target.door.events('connection-closed-by-policy'), []);
  });

  it('T25 a pipeline without end is cut', async () => {
    await using target = await stronghold(EVERYTHING, { maxRequestsPerConnection: 10 });
    using web = await rawCaller(target.world, target.door);

    await flood(web, () => Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(200)));

    assert.notDeepEqual(web.log, [], 'it is still there');
    assert.equal((await ask(target.world, target.door)).status, 200);
  });

  it('T29 requests that are reset at once end the connection', async () => {
    await using target = await stronghold(ALSO_GUEST);
    using web = await rawCaller(target.world, target.door, ['h2']);
    web.socket.write(hello());
    let stream = -1;
    const one = (): Buffer => {
      stream += 2;
      return Buffer.concat([request(stream), rstStream(stream, 8)]);
    };

    await flood(web, () => Buffer.concat(Array.from({ length: 500 }, one)), 10_000);

    assert.notDeepEqual(web.log, [], 'it is still there');
    assert.ok(target.heard.length < 2000, `${target.heard.length} requests reached the program`);
    await requireBarred(target);
  });

  it('requests that are given up after a while are no abuse, as those of callers with deadlines', async () => {
    await using world = sidecarWorld();
    const app = createServer(() => {});
    app.listen(0, '127.0.0.1');
    await once(app, 'listening');
    const { port } = app.address() as AddressInfo;
    const door = await world.start({
      inbound: { target: `127.0.0.1:${port}`, protocol: 'http' },
      authorize: EVERYTHING,
    });
    using web = await h2Caller(world, door);

    for (let round = 0; round < 8; round++) {
      const streams = Array.from({ length: 100 }, () => web.session.request({ ':path': '/', ':authority': 'x' }));
      const closed = streams.map((stream) =>
        once(
          stream.on('error', () => {}),
          'close',
        ),
      );
      await new Promise((resolve) => setTimeout(resolve, 150));
      for (const stream of streams) stream.close(8);
      await Promise.all(closed);
    }

    await new Promise((resolve) => setTimeout(resolve, 1100));
    assert.ok(!web.session.destroyed);
    assert.deepEqual(door.events('connection-closed-by-policy'), []);
    await world[Symbol.asyncDispose]();
    app.closeAllConnections();
    app.close();
  });

  for (const [what, first, next] of [
    [
      'T30 headers that never end',
      request(1, [], 0),
      frame(FrameType.CONTINUATION, 0, 1, hpack([['x-a', 'b'.repeat(100)]])),
    ],
    ['T30 headers that never end and hold nothing', request(1, [], 0), frame(FrameType.CONTINUATION, 0, 1)],
    ['T32 PING', Buffer.alloc(0), ping()],
    ['T32 SETTINGS', Buffer.alloc(0), settings()],
    ['T32 empty DATA', request(1, [], Flag.END_HEADERS), frame(FrameType.DATA, 0, 1)],
  ] as const) {
    it(`${what}: the connection is closed, the identity barred for a while, others go on`, async () => {
      await using target = await stronghold(ALSO_GUEST);
      using web = await rawCaller(target.world, target.door, ['h2']);
      web.socket.write(Buffer.concat([hello(), first]));

      await flood(web, () => repeat(next, 500), 15_000);

      assert.notDeepEqual(web.log, [], 'it is still there');
      await requireBarred(target);
    }).timeout(30_000);
  }
});

describe('callers that must leave (HTTP)', () => {
  it('T31 a caller that breaks HTTP/2 is told so, and its connection closed', async () => {
    await using target = await stronghold(EVERYTHING, { keepaliveIntervalMs: 100, keepaliveTimeoutMs: 200 });
    using web = await rawCaller(target.world, target.door, ['h2']);
    web.socket.write(Buffer.concat([hello(), frame(FrameType.HEADERS, Flag.END_HEADERS, 1, Buffer.alloc(5, 0xff))]));

    await over(web);

    assert.ok(framesIn(web.bytes()).some(({ type }) => type === FrameType.GOAWAY));
    assert.equal((await ask(target.world, target.door)).status, 200);
  });

  it('a caller that is gone without a word is noticed: it answers no PING', async () => {
    await using target = await stronghold(EVERYTHING, { keepaliveIntervalMs: 100, keepaliveTimeoutMs: 200 });
    using web = await h2Caller(target.world, target.door);
    using mute = await rawCaller(target.world, target.door, ['h2']);
    mute.socket.write(hello());

    await over(mute);

    assert.equal((await web.ask()).status, 200);
  });

  it('T10 a caller that is revoked is cut off within a second, in the middle of an answer; others go on', async () => {
    await using world = sidecarWorld();
    const app = createServer((_request, response) => void response.write('begun'));
    app.listen(0, '127.0.0.1');
    await once(app, 'listening');
    const door = await world.start({
      name: 'vault',
      inbound: { target: `127.0.0.1:${(app.address() as AddressInfo).port}`, protocol: 'http' },
      authorize: EVERYTHING,
    });
    using bad = await rawCaller(world, door);
    using good = await rawCaller(world, door);
    for (const one of [bad, good]) one.socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    await eventually(() => assert.ok(bad.text().includes('begun') && good.text().includes('begun')));
    const { serialNumber } = (bad.socket as unknown as { getCertificate(): { serialNumber: string } }).getCertificate();
    const revokedAt = Date.now();

    door.source.rotate({ ...world.issue('vault'), crlPems: [world.authority.crl({ revoked: [serialNumber] })] });
    await over(bad);

    assert.ok(Date.now() - revokedAt < 1000);
    assert.ok(!bad.text().endsWith('0\r\n\r\n') && !good.socket.destroyed);
    await world[Symbol.asyncDispose]();
    app.closeAllConnections();
    app.close();
  });
});
